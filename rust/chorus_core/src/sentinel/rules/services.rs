//! Keys of mail, messaging, monitoring and other services.

use super::{
    Form, RULE, Rule,
    checks::{has_digit, is_mixed},
    token, token_of,
};
use crate::sentinel::Severity;
use crate::sentinel::assignment::Name;

pub(super) const RULES: &[Rule] = &[
    // SendGrid keys: `SG.`, 22 characters, a dot, 43 characters of base64url (SendGrid docs, "API keys").
    Rule {
        id: "sendgrid-key",
        keywords: &["SG."],
        form: token_of(r"SG\.[A-Za-z0-9=_-]{16,32}\.[A-Za-z0-9=_-]{32,64}|SG\.[A-Za-z0-9=_.-]{66}", 128),
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[concat!("S", "G.x7Kq2LmV9nRt4WzY8bCd1F.gH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5")],
        ignored: &["SG.com", "SG.short.part"],
        ..RULE
    },
    // Twilio API keys: `SK` and 32 hexadecimal digits (Twilio docs, "API keys": SID format).
    Rule {
        id: "twilio-key",
        keywords: &[
            "SK0", "SK1", "SK2", "SK3", "SK4", "SK5", "SK6", "SK7", "SK8", "SK9", "SKa", "SKb", "SKc", "SKd", "SKe",
            "SKf",
        ],
        form: token_of("SK[0-9a-fA-F]{32}", 64),
        found: &[concat!("S", "K9f8e7d6c5b4a39281706f5e4d3c2b1a0")],
        ignored: &[
            "SK00000000000000000000000000000000",
            "SK9f8e7d",
            "SKIP9f8e7d6c5b4a39281706f5e4d3c2b1a0",
            "DISK9f8e7d6c5b4a39281706f5e4d3c2b1a0",
        ],
        ..RULE
    },
    // Mailgun private keys: `key-` and 32 hexadecimal digits; public ones are `pubkey-` (Mailgun docs, "API keys").
    Rule {
        id: "mailgun-key",
        keywords: &["key-", "pubkey-"],
        form: token("(?:pub)?key-[a-f0-9]{32}"),
        found: &[concat!("ke", "y-0808929c5b4f67df808b475e7c867afd")],
        ignored: &["key-value", "monkey-0123456789abcdef0123456789abcdef"],
        ..RULE
    },
    // Mailchimp keys: 32 hexadecimal digits and the data centre, `-us6` (Mailchimp developers, "API keys"). Told by
    // the name.
    Rule {
        id: "mailchimp-key",
        keywords: &["mailchimp", "mandrill"],
        form: Form::Named { name: Name::Part, pattern: "[a-f0-9]{32}-us[0-9]{1,2}", max_bytes: 64 },
        found: &[concat!("MAILCHIMP_API_KEY=", "6e595ab50968d5f76b0d0a746ead55cf-us14")],
        ignored: &["mailchimp_list = abc"],
        ..RULE
    },
    // Brevo (Sendinblue) keys: `xkeysib-`, 64 hexadecimal digits, 16 characters (Brevo developers,
    // "Authentication").
    Rule {
        id: "brevo-key",
        keywords: &["xkeysib-", "xsmtpsib-"],
        form: token("x(?:key|smtp)sib-[a-f0-9]{64}-[A-Za-z0-9]{16}"),
        found: &[concat!(
            "xkey",
            "sib-25eec6534d75e3dbdd5221708768ee97dc750cd374aadfd80bc45bf1326fe386-Wdk9nCdFaP5nMAYD"
        )],
        ignored: &["xkeysib-"],
        ..RULE
    },
    // Resend keys: `re_` and letters and digits in two parts (Resend docs, "API keys").
    Rule {
        id: "resend-key",
        keywords: &["re_"],
        form: token("re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}"),
        check: Some(is_mixed),
        found: &[concat!("re", "_3TuPc4W8_UNrTmAm3K9Br4J32Ov57vvEV")],
        ignored: &["re_compile", "re_match_object"],
        ..RULE
    },
    // Dynatrace tokens: `dt0c01.`, 24 and 64 characters (Dynatrace docs, "Token format").
    Rule {
        id: "dynatrace-token",
        keywords: &["dt0c01.", "dt0s01.", "dt0s02.", "dt0s16."],
        form: token(r"dt0[cs][0-9]{2}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}"),
        found: &[concat!(
            "dt",
            "0c01.OJW73AVKGYZH5H2ML2MQYMRA.PG4UAVOOG7O5ASONMJZNZE0QMSJEJOYFUI70ASZUQNVBGBQCD6D86V6X312LHEBD"
        )],
        ignored: &["dt0c01."],
        ..RULE
    },
    // Datadog API keys, 32 hexadecimal digits, and application keys, 40, told by their name (Datadog docs, "API and
    // application keys").
    Rule {
        id: "datadog-key",
        keywords: &["dd_api_key", "dd_app_key", "dd_application_key", "datadog", "dd-api-key", "dd-application-key"],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9]{32,40}", max_bytes: 64 },
        check: Some(has_digit),
        found: &[
            concat!("DD_API_KEY=", "aead482d22edc4ac24c88d9122fc14e3"),
            concat!(r#"datadog_app_key: ""#, r#"9b10c837a5dd522275b6d9aa829976b200f8939b""#),
        ],
        ignored: &["DD_API_KEY=${KEY}", "datadog_site: datadoghq.eu"],
        ..RULE
    },
    // New Relic user, insert, browser, admin and licence keys (New Relic docs, "API keys").
    Rule {
        id: "new-relic-key",
        keywords: &["NRAK-", "NRII-", "NRIQ-", "NRJS-", "NRRA-", "NRAA-", "FFFFNRAL"],
        form: token("NR(?:AK|RA|AA)-[A-Za-z0-9]{27,42}|NR(?:II|IQ)-[A-Za-z0-9_-]{32}|NRJS-[a-f0-9]{19}|FFFFNRAL"),
        entropy: Some(2.5),
        check: Some(has_digit),
        found: &[
            concat!("NR", "AK-VW35Z1R36ESJCY5U8GOE1MJLVN1"),
            concat!("NR", "II-HQX-DoFggbwuxAOmi2rKjkW9JbtIn0z0"),
            concat!("NR", "JS-d2c516df09e08ee36bb"),
        ],
        ignored: &["NRAK-", "NRJS-"],
        ..RULE
    },
    // Grafana service account, cloud and API keys (Grafana docs, "Service accounts", "Access policies").
    Rule {
        id: "grafana-token",
        keywords: &["glsa_", "glc_", "eyJrIjoi"],
        form: token_of(
            "glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|glc_[A-Za-z0-9+/]{32,400}={0,3}|eyJrIjoi[A-Za-z0-9]{70,400}={0,3}",
            512,
        ),
        found: &[
            concat!("gl", "sa_QNwuykqtr0IVE2ZcDXYxYuWdnZ5EVMnp_dd4442ae"),
            concat!("gl", "c_1pRK9NfSGkt69uDat+pxwSM4EZ2GvtBAAaqRnpJ6zgwPStwtEvBZIX9CYxDoDRgp="),
            concat!("eyJr", "IjoiOFvA16RFLBYiB0kHdAYc67JtRTg2QDWKAZFLzSbpLDW24Z1k5Ze7iSZ6HHPVnbT36sQe4eGVV4WeXOVN"),
        ],
        ignored: &["glsa_00000000000000000000000000000000_00000000", "glc_short"],
        ..RULE
    },
    // Sentry organisation and user tokens (Sentry docs, "Auth tokens").
    Rule {
        id: "sentry-token",
        keywords: &["sntrys_eyJ", "sntryu_"],
        form: token_of("sntrys_eyJ[A-Za-z0-9+/]{30,400}={0,2}_[A-Za-z0-9+/]{43}|sntryu_[a-f0-9]{64}", 512),
        found: &[
            concat!(
                "sntry",
                "s_eyJygdH5YuQiLEzsFMtJ4YDRbHDgZXNNzq948H2HLgVGZrAzMdR92BOhkAEfWPtSYDr6zambf5MfwhGIQV8E2gqqGOouk4EgOrSm2Vb647NbQrueV2rchXgEh1X=_HLZmlcuu5V3XiqpPDnIZiWJaCH6hOv9pP597vG6qg2q"
            ),
            concat!("sntry", "u_dabb23f8e10d00771040709c35548a27024d2d879a55acfa8a72126b4aabc65d"),
        ],
        ignored: &["sntrys_eyJ", "sntryu_0000000000000000000000000000000000000000000000000000000000000000"],
        ..RULE
    },
    // Okta tokens: `00` and 40 characters of base64url, told by their name (Okta developers, "Create an API token").
    Rule {
        id: "okta-token",
        keywords: &["okta", "ssws"],
        form: Form::Named { name: Name::Service, pattern: "00[A-Za-z0-9_=-]{38,40}", max_bytes: 64 },
        check: Some(is_mixed),
        found: &[
            concat!("okta_api_token: ", "00wytz_qJ8WV8ow4NRig-_Hs4Bq7I7qnttEG__ATcJ"),
            concat!(r#"OKTA_TOKEN=""#, r#"00AC_2AGX1v2_nxdwfB1WmbD1-BbbfR6lLUxgQ8VKo""#),
        ],
        ignored: &["okta_key = 000000000000000000000000000000000000000000", "okta_domain: example.okta.com"],
        ..RULE
    },
    // Auth0 client secrets: 64 characters of base64url, told by their name (Auth0 docs, "Applications").
    Rule {
        id: "auth0-secret",
        keywords: &["auth0"],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9_-]{64}", max_bytes: 128 },
        entropy: Some(4.0),
        check: Some(is_mixed),
        found: &[concat!("AUTH0_CLIENT_SECRET=", "xJonfqBsAe5UGb9j3pc4cO6WEaUF0dpIGk2QTsbA9fNPDAUCMlUrRv2fjoZDRC9x")],
        ignored: &["auth0_domain: example.eu.auth0.com"],
        ..RULE
    },
    // Dropbox tokens: `sl.` and base64url (Dropbox developers, "OAuth guide").
    Rule {
        id: "dropbox-token",
        keywords: &["sl."],
        form: token_of(r"sl\.[A-Za-z0-9_=.-]{100,}", 512),
        check: Some(is_mixed),
        found: &[concat!(
            "sl",
            ".B9zCVIqjx4XkrD0vzdmpOJcEL86xbQnZmaHhr4418ssCEcD5asb5mG5vgFhg2WAgQoTcwDPfxh16Eyxtp9LA1XDeMhhgXKP_sapK0wBxvFPwHiCdjhs-VsNXrVwAJR5kbXhpbdJzc4Aj"
        )],
        ignored: &["sl.com", "sl.append"],
        ..RULE
    },
    // Typeform tokens: `tfp_` and 59 characters (Typeform developers, "Personal access token").
    Rule {
        id: "typeform-token",
        keywords: &["tfp_"],
        form: token("tfp_[A-Za-z0-9_.=-]{40,59}"),
        found: &[concat!("tf", "p_tqokFYtddmdt2HBcjlzrB4dbzF4vAw3BxQvPFrsaHKfR_64RMB9FXELj5y")],
        ignored: &["tfp_short"],
        ..RULE
    },
    // HubSpot private app tokens: `pat-`, the region, a UUID (HubSpot developers, "Private apps").
    Rule {
        id: "hubspot-token",
        keywords: &["pat-na", "pat-eu", "pat-ap"],
        form: token("pat-(?:na|eu|ap)[0-9]?-[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}"),
        found: &[concat!("pa", "t-na1-5f94ab38-b042-e606-dc4d-bdd9bc337c98")],
        ignored: &["pat-native"],
        ..RULE
    },
    // Mapbox secret and public tokens: `sk.` or `pk.`, base64url of JSON, 22 characters (Mapbox docs, "Access
    // tokens").
    Rule {
        id: "mapbox-token",
        keywords: &["sk.eyJ", "pk.eyJ", "pk.", "sk."],
        form: token(r"[ps]k\.(?:eyJ[A-Za-z0-9_-]{40,200}|[a-z0-9]{60})\.[A-Za-z0-9_-]{22}"),
        found: &[concat!(
            "sk",
            ".eyJdQA9hg-wbm2gPcTk9iYF-lygFB8Lwrlt3XZDVEfyxRpHrAqg9xazIMdamuiangbTHlvPRmlpn79c_QWs.N2eLY_1mMXL4MyUe7_qc3Z"
        )],
        ignored: &["pk.objects.get", "sk.learn"],
        ..RULE
    },
    // Asana personal access tokens: `1/`, `2/`, numbers, hexadecimal digits (Asana developers, "Personal access
    // token").
    Rule {
        id: "asana-token",
        keywords: &["1/1", "2/1"],
        form: token("[12]/[0-9]{15,17}(?:/[0-9]{15,17})?:[a-f0-9]{32}"),
        found: &[concat!("2", "/1111612283060035/1242212605391575:427279d622a6c6c9a8ec4570f740a487")],
        ignored: &["1/1", "2/12/2024"],
        ..RULE
    },
    // Defined Networking tokens: `dnkey-`, an id and a secret (Defined Networking docs, "API").
    Rule {
        id: "defined-networking-token",
        keywords: &["dnkey-"],
        form: token("dnkey-[A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{52}"),
        found: &[concat!("dn", "key-BtzDz9yb1YB3jcXc3XvPyKrteC-QtEWSjEkXBH7yDkUUr0jD3vvzEArmNwS2-CCIU0zRiJM-Mz3uoXC")],
        ignored: &["dnkey-"],
        ..RULE
    },
    // Authress service client keys: `sc_`, `ext_`, `scauth_` or `authress_` and parts with dots (Authress docs,
    // "Service clients").
    Rule {
        id: "authress-key",
        keywords: &["sc_", "ext_", "scauth_", "authress_"],
        form: token(
            r"(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[A-Za-z0-9+/_=-]{30,120}",
        ),
        found: &[concat!(
            "sc",
            "_lhzw7l53n4.vgy5.acc_hvsq2q0lu6r0.CAqFOSWHzhjfQLc_tyZtLxnROckh1f-RUa0URbq8PhgI_axobllCbOLnAxXj"
        )],
        ignored: &["sc_clk", "ext_modules.append"],
        ..RULE
    },
    // MaxMind licence keys: six, 29 characters and `_mmk` (MaxMind support, "License keys").
    Rule {
        id: "maxmind-key",
        keywords: &["maxmind", "geoip", "license_key", "licensekey"],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk", max_bytes: 64 },
        found: &[concat!("MAXMIND_LICENSE_KEY=", "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")],
        ignored: &["MAXMIND_LICENSE_KEY=", "license_key: MIT"],
        ..RULE
    },
    // SettleMint application, personal and service tokens (SettleMint docs, "Access tokens").
    Rule {
        id: "settlemint-token",
        keywords: &["sm_aat_", "sm_pat_", "sm_sat_"],
        form: token("sm_[aps]at_[A-Za-z0-9]{16}"),
        found: &[concat!("sm", "_pat_TkgGB52Pib0Cmcp9")],
        ignored: &["sm_aat_"],
        ..RULE
    },
    // ClickHouse Cloud key secrets: `4b1d` and 38 letters and digits (ClickHouse docs, "Managing API keys").
    Rule {
        id: "clickhouse-key",
        keywords: &["4b1d"],
        form: token("4b1d[A-Za-z0-9]{38}"),
        check: Some(is_mixed),
        found: &[concat!("4b", "1d0a4mEaakFlmujLDonDGspC87Hxf7QDa8PsV4mN")],
        ignored: &["4b1d00000000000000000000000000000000000000", "4b1d"],
        ..RULE
    },
    // GoCardless tokens: `live_` or `sandbox_` and 40 characters, told by their name (GoCardless docs, "Access
    // tokens").
    Rule {
        id: "gocardless-token",
        keywords: &["gocardless"],
        form: Form::Named { name: Name::Part, pattern: "(?:live|sandbox)_[A-Za-z0-9_=-]{40}", max_bytes: 64 },
        check: Some(has_digit),
        found: &[concat!("GOCARDLESS_TOKEN=", "live_P4eMLeOtHz1EQd0YB5okuCa0TNxQygeTKthLSCaY")],
        ignored: &["gocardless_environment: sandbox"],
        ..RULE
    },
    // Credentials of Sidekiq Pro and Enterprise, as Bundler reads them: two times eight hexadecimal digits (Sidekiq
    // wiki, "Commercial FAQ").
    Rule {
        id: "sidekiq-credentials",
        keywords: &["bundle_enterprise__contribsys", "bundle_gems__contribsys"],
        form: Form::Named { name: Name::Part, pattern: "[a-f0-9]{8}:[a-f0-9]{8}", max_bytes: 32 },
        entropy: Some(1.5),
        found: &[concat!("BUNDLE_ENTERPRISE__CONTRIBSYS__COM=", "148ff0aa:1a58b66f")],
        ignored: &["BUNDLE_GEMS__CONTRIBSYS__COM=none"],
        ..RULE
    },
    // Client secrets of 42's API: `s-s4t2ud-` or `s-s4t2af-` and 64 hexadecimal digits (42 API, "Getting started").
    Rule {
        id: "intra42-secret",
        keywords: &["s-s4t2ud-", "s-s4t2af-"],
        form: token("s-s4t2(?:ud|af)-[a-f0-9]{64}"),
        found: &[concat!("s-s4", "t2ud-3fd17350eef0609aef118fd9bd1bd26ba33acaeb2f61f92166923cfbcd640ab9")],
        ignored: &["s-s4t2ud-"],
        ..RULE
    },
    // Sumo Logic access ids: `su` and 12 letters and digits, told by their name (Sumo Logic docs, "Access keys").
    Rule {
        id: "sumologic-access-id",
        keywords: &["sumo", "sumologic", "sumo_logic"],
        form: Form::Named { name: Name::Word, pattern: "su[A-Za-z0-9]{12}", max_bytes: 32 },
        entropy: Some(2.5),
        check: Some(is_mixed),
        found: &[concat!("SUMOLOGIC_ACCESS_ID=", "suQ7xKq2LmV9nR")],
        ignored: &["sumo_access_id=suitablewords1"],
        ..RULE
    },
    // New Relic licence keys, 40 characters that end in `NRAL`, told by their name (New Relic docs, "License key").
    Rule {
        id: "new-relic-license-key",
        keywords: &["license", "newrelic", "new_relic", "new relic"],
        form: Form::Named { name: Name::Part, pattern: "[a-z0-9]{30,36}(?:FFFF)?NRAL", max_bytes: 64 },
        entropy: Some(2.5),
        check: Some(has_digit),
        found: &[concat!("license_key: ", "eu01xx9f8e7d6c5b4a39281706f5e4d3c2b1NRAL")],
        ignored: &["license: MIT", "license_key: 000000000000000000000000000000000000NRAL"],
        ..RULE
    },
    // Unseal keys of HashiCorp Vault, as it prints them: `Unseal Key 1: …` (Vault docs, "operator init").
    Rule {
        id: "vault-unseal-key",
        keywords: &["unseal key"],
        form: Form::Assigned {
            unless_after: "",
            lead: "(?i)unseal key(?: [0-9]{1,2})?: ?",
            pattern: "[A-Za-z0-9+/=]{43,88}",
            max_bytes: 128,
        },
        severity: Severity::Critical,
        check: Some(has_digit),
        found: &[concat!("Unseal Key 1: ", "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM=")],
        ignored: &["Unseal Key 1: none", "the unseal key is lost"],
        ..RULE
    },
];
