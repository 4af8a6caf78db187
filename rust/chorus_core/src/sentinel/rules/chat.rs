//! Tokens of chat services, and addresses that anyone who knows them can post to.

use super::{
    Behind, Form, RULE, Rule,
    checks::{has_digit, is_slack, is_telegram},
    token, token_of,
};
use crate::sentinel::Severity;

pub(super) const RULES: &[Rule] = &[
    // Slack tokens of bots, users, workspaces, configurations and refreshes, and session cookies (Slack docs, "Token
    // types").
    Rule {
        id: "slack-token",
        keywords: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxo-", "xoxd-", "xoxe-", "xoxe.xox"],
        form: token_of(
            r"xoxb-[0-9]{6,14}-[A-Za-z0-9-]{18,}|xox[pe](?:-[0-9]{6,14}){3}-[A-Za-z0-9-]{16,}|xox[aros]-[A-Za-z0-9-]{8,}|xoxe(?:\.xox[bp])?-[0-9]-[A-Za-z0-9-]{100,}|xoxd-[A-Za-z0-9%+/=]{40,}",
            512,
        ),
        severity: Severity::Critical,
        entropy: Some(2.5),
        check: Some(is_slack),
        found: &[
            concat!("xo", "xb-2401539876-3310982745-x7Kq2LmV9nRt4WzY8bCd1FgH"),
            concat!("xo", "xp-2401539876-3310982745-3310982746-9f8e7d6c5b4a39281706f5e4d3c2b1a0"),
            concat!(
                "xo",
                "xe.xoxp-1-0SqmhLNQgeOUo06Wvy5c5tFTqVhxAcKx63fn91ofJ4TfaVz1VByZ5hLe6LmIXShRRClZ7zQFcnUoOvun1MhQuf3jbP0vuBFn7gFgNPDNC77Ww1lMzJyVhewOpPqpiYsLcXH2EImXI9kttdFDXCHIJOCNb0qQsHWa"
            ),
            concat!("xo", "xr-d8bnjw423sz84"),
            concat!("xo", "xr-qwbnjwkfrszhx"),
            concat!("xo", "xp-240153-331098-331099-9f8e7d6c5b4a392817"),
        ],
        ignored: &[
            "xoxb-your-token-goes-here-please",
            "xoxb-",
            "xoxb-000000000000000000000000",
            "https://example.org/2018/xoxo-festival-2018-crowd-12.jpg",
        ],
        ..RULE
    },
    // Slack app-level tokens, for socket mode (Slack docs, "Token types").
    Rule {
        id: "slack-app-token",
        keywords: &["xapp-"],
        form: token("xapp-[0-9]-[A-Za-z0-9]{6,}-[0-9]{8,}-[a-z0-9]{32,}"),
        severity: Severity::Critical,
        entropy: None,
        found: &[concat!(
            "xa",
            "pp-1-A04QK7ZB9XW-4512398760123-9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0"
        )],
        ignored: &["xapp-1-APPID-TOKEN", "xapp-config"],
        ..RULE
    },
    // Slack incoming webhooks: whoever knows the address can post (Slack docs, "Sending messages using incoming
    // webhooks").
    Rule {
        id: "slack-webhook",
        keywords: &["hooks.slack.com/services/", "hooks.slack.com/workflows/", "hooks.slack.com/triggers/"],
        form: token(r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{30,}"),
        entropy: None,
        check: Some(has_digit),
        found: &[concat!("https://hooks.slack.com/serv", "ices/T04QK7ZB9/B05XW2MN8PL/x7Kq2LmV9nRt4WzY8bCd1FgH")],
        ignored: &[
            "https://hooks.slack.com/services/",
            "hooks.slack.com/services/TXXXXXXXX/BXXXXXXXX/XXXXXXXXXXXXXXXXXXXXXXXX",
        ],
        ..RULE
    },
    // Discord bot tokens: base64 of the bot's number, of a time, and an HMAC, with dots between; they have no mark,
    // so the name they are given counts (Discord developer docs, "Authentication").
    Rule {
        id: "discord-bot-token",
        keywords: &["discord", "bot_token", "bottoken", "bot ", "client.run"],
        form: Form::Assigned {
            unless_after: "",
            lead: r#"(?i)(?:(?:discord|bot_?token)[a-z_.-]{0,32}\\?["']?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}(?:bot[ ])?\\?["'`]?|bot |client\.run\(["'])"#,
            pattern: r"[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}",
            max_bytes: 128,
        },
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[
            concat!("DISCORD_TOKEN=MT", "A4NjQ1NzE2NzQzMjE5ODc2NQ.G7kLmQ.x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
            concat!("client.run('MT", "A4NjQ1NzE2NzQzMjE5ODc2NQ.G7kLmQ.x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw')"),
        ],
        ignored: &["discord.gg = MyServer.invite.link", "discord: https://discord.gg/abcdef"],
        ..RULE
    },
    // Discord webhooks (Discord developer docs, "Webhook").
    Rule {
        id: "discord-webhook",
        keywords: &["/api/webhooks/"],
        form: Form::Assigned {
            unless_after: "",
            lead: "/api/webhooks/[0-9]{17,20}/",
            pattern: "[A-Za-z0-9_-]{60,80}",
            max_bytes: 128,
        },
        found: &[concat!(
            "https://discord.com/api/web",
            "hooks/1084571674321987650/QzdQdoM_TbuR9ttU73ICA6al0A5RcERak5kewmN51SUrVrMWyGrQQ20tCkihwgUV9Kwf"
        )],
        ignored: &["https://discord.com/api/webhooks/1084571674321987650/token"],
        ..RULE
    },
    // Telegram bot tokens: the bot's number, a colon, and 35 characters that begin with `A` (Telegram Bot API,
    // "Authorizing your bot"). The number is public.
    Rule {
        id: "telegram-bot-token",
        keywords: &[":A"],
        form: Form::Token { behind: Behind::BotNumber, pattern: "A[A-Za-z0-9_-]{34}", whole: true, max_bytes: 64 },
        severity: Severity::Critical,
        check: Some(is_telegram),
        found: &[concat!("https://api.telegram.org/bot7213456789", ":AA", "Hx7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE/getMe")],
        ignored: &[
            "12:AAHx7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE",
            "7213456789:AAHshort",
            "time 12345678:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "7213456789:AsiDrHvLeuUbN1M59yf5K1DXlLuES6petS0-x",
        ],
        ..RULE
    },
    // Incoming webhooks of Microsoft Teams (Microsoft Learn, "Create an incoming webhook").
    Rule {
        id: "teams-webhook",
        keywords: &["webhook.office.com/webhookb2/", "outlook.office.com/webhook/"],
        form: token(
            r"(?:webhook|outlook)\.office\.com/webhook(?:b2)?/[A-Za-z0-9@-]{60,90}/IncomingWebhook/[A-Za-z0-9]{32}/[A-Za-z0-9-]{36}",
        ),
        found: &[
            concat!(
                "https://acme.webhook.office.com/web",
                "hookb2/48812d4a-1e9e-0a1e-ede4-0413efd4f5fc@e9779030-a18b-bc15-cbed-66da32069bba/IncomingWebhook/7de7d5c5db80c3cf892afd08018c339c/39f351e1-5a5d-010d-a005-9c5a2f5944a4"
            ),
            concat!(
                "https://outlook.office.com/web",
                "hook/cc657742-8c2f-6d6b-c64e-5a22fac180d6@b2e6e1b4-65e5-5130-5fd2-d2490ca4c616/IncomingWebhook/e8c4bf144d3334955d46af783b52901a/6ccaccdb-251b-ce79-793a-67c9e2ed829a"
            ),
        ],
        ignored: &["https://acme.webhook.office.com/webhookb2/"],
        ..RULE
    },
];
