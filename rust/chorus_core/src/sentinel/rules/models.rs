//! Keys of model providers.

use super::{
    Form, RULE, Rule,
    checks::{has_digit, is_anthropic, is_mixed, is_openai},
    token, token_of,
};
use crate::sentinel::Severity;
use crate::sentinel::assignment::Name;

pub(super) const RULES: &[Rule] = &[
    // Anthropic keys: `sk-ant-`, a kind such as `api03-` or `admin01-`, 93 characters of base64url and `AA`
    // (Anthropic docs, "Getting started").
    Rule {
        id: "anthropic-key",
        keywords: &["sk-ant-"],
        form: token("sk-ant-[A-Za-z0-9_-]{84,}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        check: Some(is_anthropic),
        found: &[
            concat!(
                "sk-",
                "ant-api03-Ou42G07_69QHhPar8PQ63hZGyiVwXByFR2C1wOeW7aIr_GhoCBHoLNzbgfTB83muef0UmCxMUFY_dSiV1xjaHY6sVu1SOAA"
            ),
            concat!(
                "sk-",
                "ant-admin01-Ujz69LvLZSYSd6Md1yCQxUpMJNUKLrmsHmdaP8PTCye00g4vY2KoHfEBo73lo5eHAl79gchwLZ-TNPCgn7df-14Im5qouAA"
            ),
        ],
        ignored: &[
            "sk-ant-api03-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "sk-ant-",
        ],
        ..RULE
    },
    // OpenAI keys: `sk-`, later `sk-proj-`, `sk-svcacct-`, `sk-admin-`, and base64url (OpenAI platform docs, "API
    // keys"). DeepSeek, OpenRouter and others with compatible interfaces hand out `sk-` keys too.
    Rule {
        id: "openai-key",
        keywords: &["sk-"],
        form: token_of("sk-(?:proj-|svcacct-|admin-|or-v1-|None-)?[A-Za-z0-9_-]{20,}", 96),
        severity: Severity::Critical,
        entropy: Some(3.3),
        check: Some(is_openai),
        found: &[
            concat!("sk-", "x7Kq2LmV9nRt4WzY8bCdT3BlbkFJ1FgH6jPs3TuE5aQwX2cV"),
            concat!("sk-", "proj-x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5tY"),
            concat!("sk-", "or-v1-5b1f11284db8013fdb343f21e86f156453274e91372bc406170de1f5d120472d"),
            concat!("sk-", "f764864baed43b74c71fe15cc508eb49"),
        ],
        ignored: &[
            "task-x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE",
            "sk-learn-contrib-is-a-long-name-of-a-package",
            "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "risk-2024-Assessment-of-the-Whole-Project",
        ],
        ..RULE
    },
    // Hugging Face user and organisation tokens: `hf_` or `api_org_` and 34 letters and digits (Hugging Face docs,
    // "User access tokens").
    Rule {
        id: "hugging-face-token",
        keywords: &["hf_", "api_org_"],
        form: token("(?:hf|api_org)_[A-Za-z0-9]{34}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[
            concat!("h", "f_KxTqLmVwnRtJWzYpbCdRFgHGjPsUTuEAaQ"),
            concat!("h", "f_4tVv2dkgBSboBvw7AeAd1whOHq4cdDzSXC"),
        ],
        ignored: &[
            "hf_hub_download",
            "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "hf_transfer",
            "hf_aVeryLongNameOfAnAttributeInSomeProgram",
        ],
        ..RULE
    },
    // Groq keys: `gsk_` and 52 letters and digits (Groq docs, "API keys").
    Rule {
        id: "groq-key",
        keywords: &["gsk_"],
        form: token("gsk_[A-Za-z0-9]{52}"),
        check: Some(has_digit),
        found: &[concat!("gs", "k_fgFRDSzFMn18B3Aqfu0bQUugvVJEAHt3Y1R0bRupvEC9uoxMOUa8")],
        ignored: &["gsk_short"],
        ..RULE
    },
    // Perplexity keys: `pplx-` and 48 letters and digits (Perplexity docs, "API keys").
    Rule {
        id: "perplexity-key",
        keywords: &["pplx-"],
        form: token("pplx-[A-Za-z0-9]{48}"),
        check: Some(has_digit),
        found: &[concat!("pp", "lx-L3ibKUAUGMvD3XsMdDM8WYCzprZti751dPB93NQcwB83UtP4")],
        ignored: &["pplx-short"],
        ..RULE
    },
    // Replicate tokens: `r8_` and 37 letters and digits (Replicate docs, "API tokens").
    Rule {
        id: "replicate-token",
        keywords: &["r8_"],
        form: token("r8_[A-Za-z0-9]{37}"),
        check: Some(has_digit),
        found: &[concat!("r8", "_LHdH07KJ6Wy246pYbH90fnaCOEtkzxzdMbDaA")],
        ignored: &["r8_unorm"],
        ..RULE
    },
    // xAI keys: `xai-` and 80 letters and digits (xAI docs, "API keys").
    Rule {
        id: "xai-key",
        keywords: &["xai-"],
        form: token("xai-[A-Za-z0-9]{80}"),
        check: Some(has_digit),
        found: &[concat!("xa", "i-lQATOEE4Sbp3MrU14O8abqt4o6hqcwmf7uFMjig2OQlmTm9yNE3XHOODQ1rXPm53moEIHGvYcwyUIM8H")],
        ignored: &["xai-grok"],
        ..RULE
    },
    // Fireworks AI keys: `fw_` and 22 or more letters and digits (Fireworks docs, "API keys").
    Rule {
        id: "fireworks-key",
        keywords: &["fw_"],
        form: token("fw_[A-Za-z0-9]{22,24}"),
        check: Some(has_digit),
        found: &[concat!("fw", "_fSZQfLdH5XwWqfIDPLSE7may")],
        ignored: &["fw_printenv"],
        ..RULE
    },
    // NVIDIA API catalogue keys: `nvapi-` and 64 characters (NVIDIA NIM docs, "API keys").
    Rule {
        id: "nvidia-key",
        keywords: &["nvapi-"],
        form: token("nvapi-[A-Za-z0-9_-]{60,}"),
        check: Some(has_digit),
        found: &[concat!("nv", "api-L74Wd1UNufQ3Gpso2u32MJiQcQgNk9GCQF7SNzJtJ1GFKYUHeQyMkApjtP7-2q-z")],
        ignored: &["nvapi-none"],
        ..RULE
    },
    // LangSmith keys: `lsv2_`, the kind, 32 and 10 hexadecimal digits (LangSmith docs, "API keys").
    Rule {
        id: "langsmith-key",
        keywords: &["lsv2_"],
        form: token("lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
        check: Some(has_digit),
        found: &[concat!("lsv", "2_pt_20d80b9aa846c14423ef31079d25886d_fd45cc6ced")],
        ignored: &["lsv2_pt_"],
        ..RULE
    },
    // Tavily keys: `tvly-` and letters and digits (Tavily docs, "API keys").
    Rule {
        id: "tavily-key",
        keywords: &["tvly-"],
        form: token("tvly-(?:dev-|prod-)?[A-Za-z0-9]{32}"),
        check: Some(has_digit),
        found: &[concat!("tv", "ly-wpEaJ7VXgzUTPNcsng4WD8FnxaHZNt4Z")],
        ignored: &["tvly-"],
        ..RULE
    },
    // Pinecone keys: `pcsk_` and base62 (Pinecone docs, "API keys").
    Rule {
        id: "pinecone-key",
        keywords: &["pcsk_"],
        form: token("pcsk_[A-Za-z0-9]{5,6}_[A-Za-z0-9]{63}"),
        check: Some(has_digit),
        found: &[concat!("pc", "sk_2g8yxI_2KQAW6XV08T9Slzo9llAfq6i4ye1iHyfOVUKWHGADB5bfghIOmYZi6na59e6pik")],
        ignored: &["pcsk_"],
        ..RULE
    },
    // Cerebras keys: `csk-` and 48 letters and digits (Cerebras docs, "API keys").
    Rule {
        id: "cerebras-key",
        keywords: &["csk-"],
        form: token("csk-[a-z0-9]{48}"),
        check: Some(has_digit),
        found: &[concat!("cs", "k-c6id4bwadado2152yynq9cl0kffuclpxm6pyix2dddrmf7la")],
        ignored: &["csk-none"],
        ..RULE
    },
    // Voyage AI keys: `pa-` and 43 characters (Voyage docs, "API keys").
    Rule {
        id: "voyage-key",
        keywords: &["pa-"],
        form: token("pa-[A-Za-z0-9_-]{43}"),
        check: Some(has_digit),
        found: &[concat!("pa", "-Jkya1tnaGMMBrHGU5LyRcjjxZF6SeYFQ4T-iU3tjMlJ")],
        ignored: &["pa-pathological-dash-separated-words-of-length"],
        ..RULE
    },
    // ElevenLabs keys: `sk_` and 48 hexadecimal digits (ElevenLabs docs, "Authentication").
    Rule {
        id: "elevenlabs-key",
        keywords: &["sk_"],
        form: token("sk_[a-f0-9]{48}"),
        check: Some(has_digit),
        found: &[concat!("sk", "_f86999be18149b63166bcb45fede084f4dc73e6b2615be0c")],
        ignored: &["sk_buff"],
        ..RULE
    },
    // Cohere keys: 40 letters and digits without a mark, told by their name, `CO_API_KEY` (Cohere docs, "API keys").
    Rule {
        id: "cohere-key",
        keywords: &["co_api_key", "cohere"],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9]{40}", max_bytes: 64 },
        entropy: Some(3.5),
        check: Some(is_mixed),
        found: &[
            concat!("export CO_API_KEY=", "7n9l7hgsothTNcCJdLp0Ctt7AoeE9JcakD8wEZ6Y"),
            concat!(r#"cohere_key: ""#, r#"l3jpE9bC1Cn9ggH8WxFuTRL1CdPyQDB3lq8k3jWy""#),
        ],
        ignored: &["CO_API_KEY=0000000000000000000000000000000000000000", "cohere: embed-english-v3"],
        ..RULE
    },
];
