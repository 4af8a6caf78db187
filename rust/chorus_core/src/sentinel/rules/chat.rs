//! Tokens of chat services.

use super::{Behind, Form, Rule, has_digit};
use crate::sentinel::{Action, Severity};

/// Slack tokens of bots, users, configurations and refreshes (Slack docs, "Token types").
pub(super) const SLACK_TOKEN: Rule = Rule {
    id: "slack-token",
    keywords: &["xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xoxe-", "xoxe.xox"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: r"xox(?:[bpars]|e(?:\.xox[bp])?)-[A-Za-z0-9-]{20,}",
        alphabet: "A-Za-z0-9.-",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(2.5),
    check: Some(has_digit),
    found: &[
        concat!("xo", "xb-2401539876-3310982745-x7Kq2LmV9nRt4WzY8bCd1FgH"),
        concat!("xo", "xp-2401539876-3310982745-3310982746-9f8e7d6c5b4a39281706f5e4d3c2b1a0"),
    ],
    ignored: &["xoxb-your-token-goes-here-please", "xoxb-", "xoxb-000000000000000000000000"],
};

/// Slack app-level tokens, for socket mode (Slack docs, "Token types").
pub(super) const SLACK_APP_TOKEN: Rule = Rule {
    id: "slack-app-token",
    keywords: &["xapp-"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "xapp-[0-9]-[A-Z0-9]{6,}-[0-9]{8,}-[a-z0-9]{32,}",
        alphabet: "A-Za-z0-9-",
        max_bytes: 512,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: None,
    check: None,
    found: &[concat!(
        "xa",
        "pp-1-A04QK7ZB9XW-4512398760123-9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0"
    )],
    ignored: &["xapp-1-APPID-TOKEN", "xapp-config"],
};

/// Slack incoming webhooks: whoever knows the address can post (Slack docs, "Sending messages using incoming webhooks").
pub(super) const SLACK_WEBHOOK: Rule = Rule {
    id: "slack-webhook",
    keywords: &["hooks.slack.com/services/", "hooks.slack.com/workflows/", "hooks.slack.com/triggers/"],
    form: Form::Token {
        behind: Behind::Word,
        pattern: "hooks\\.slack\\.com/(?:services|workflows|triggers)/[A-Za-z0-9_-]{8,}/[A-Za-z0-9_/-]{20,}",
        alphabet: "A-Za-z0-9_./-",
        max_bytes: 256,
    },
    severity: Severity::High,
    action: Action::Redact,
    entropy: None,
    check: Some(has_digit),
    found: &[concat!("https://hooks.slack.com/serv", "ices/T04QK7ZB9/B05XW2MN8PL/x7Kq2LmV9nRt4WzY8bCd1FgH")],
    ignored: &[
        "https://hooks.slack.com/services/",
        "hooks.slack.com/services/TXXXXXXXX/BXXXXXXXX/XXXXXXXXXXXXXXXXXXXXXXXX",
    ],
};

/// Discord bot tokens: base64 of the bot's number, of a time, and an HMAC, with dots between; they have no mark, so the
/// name they are given counts (Discord developer docs, "Authentication").
pub(super) const DISCORD_BOT_TOKEN: Rule = Rule {
    id: "discord-bot-token",
    keywords: &["discord", "bot_token", "bottoken", "bot ", "client.run"],
    form: Form::Assigned {
        unless_after: "",
        lead: r#"(?i)(?:(?:discord|bot_?token)[a-z_.-]{0,32}\\?["']?[ \t]{0,4}(?::=|=>|=|:)[ \t]{0,4}(?:bot[ ])?\\?["'`]?|bot |client\.run\(["'])"#,
        pattern: r"([MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40})(?:[^A-Za-z0-9_.-]|$)",
        alphabet: "A-Za-z0-9_.-",
        max_bytes: 128,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.5),
    check: None,
    found: &[
        concat!("DISCORD_TOKEN=MT", "A4NjQ1NzE2NzQzMjE5ODc2NQ.G7kLmQ.x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
        concat!("client.run('MT", "A4NjQ1NzE2NzQzMjE5ODc2NQ.G7kLmQ.x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw')"),
    ],
    ignored: &["discord.gg = MyServer.invite.link", "discord: https://discord.gg/abcdef"],
};

/// Telegram bot tokens: the bot's number, a colon, and 35 characters that begin with `AA` (Telegram Bot API,
/// "Authorizing your bot"). The number is public.
pub(super) const TELEGRAM_BOT_TOKEN: Rule = Rule {
    id: "telegram-bot-token",
    keywords: &[":AA"],
    form: Form::Token {
        behind: Behind::BotNumber,
        pattern: "(AA[A-Za-z0-9_-]{33})(?:[^A-Za-z0-9_-]|$)",
        alphabet: "A-Za-z0-9_-",
        max_bytes: 64,
    },
    severity: Severity::Critical,
    action: Action::Redact,
    entropy: Some(3.0),
    check: None,
    found: &[concat!("https://api.telegram.org/bot", "7213456789", ":AA", "Hx7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE/getMe")],
    ignored: &[
        "12:AAHx7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE",
        "7213456789:AAHshort",
        "time 12345678:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
};
