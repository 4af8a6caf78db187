//! Keys of cloud providers.

use super::{
    Behind, Form, RULE, Rule,
    checks::{has_digit, is_client_secret, is_mixed, is_no_example},
    token, token_of,
};
use crate::sentinel::Severity;
use crate::sentinel::assignment::Name;

pub(super) const RULES: &[Rule] = &[
    // AWS access key ids: a four letter prefix naming the kind and 16 capitals and digits (IAM, "Unique
    // identifiers"). Those that end in EXAMPLE are of the documentation.
    Rule {
        id: "aws-access-key",
        keywords: &["AKIA", "ASIA", "ABIA", "ACCA", "A3T"],
        form: token("(?:A(?:KIA|SIA|BIA|CCA)|A3T[A-Z0-9])[A-Z0-9]{16}"),
        check: Some(is_no_example),
        found: &[
            concat!("AK", "IAQYLPMN5HXJ7KD3RT"),
            concat!("AK", "IA0YLP8N5HXJ7KD1R9"),
            concat!("aws_access_key_id=AS", "IAZ2XWV5T7QKEL4MNB"),
        ],
        ignored: &[
            "AKIAAAAAAAAAAAAAAAAA",
            "AKIAQYLPMN5HXJ7KD3RTTOOLONG",
            "xAKIAQYLPMN5HXJ7KD3RT",
            "AKIA",
            "ASIAN food",
            "AKIAQYLPMN5HXEXAMPLE",
        ],
        ..RULE
    },
    // AWS secret access keys: 40 characters of base64 without a mark of their own, told by the name they are given
    // (`aws_secret_access_key` in the AWS CLI's files, `SecretAccessKey` in STS answers).
    Rule {
        id: "aws-secret-key",
        keywords: &[
            "secret_access_key",
            "secretaccesskey",
            "secret-access-key",
            "aws_secret",
            "aws-secret",
            "awssecret",
            "secret_key",
            "secretkey",
        ],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9/+]{40}", max_bytes: 41 },
        severity: Severity::Critical,
        entropy: Some(3.8),
        check: Some(is_mixed),
        found: &[
            concat!("aws_secret_access_key = ", "q8Zt/3VbN1kLw0XyRe+5HsJ7uPdGm2CfTa9oQiUx"),
            concat!(r#""SecretAccessKey": ""#, r#"q8Zt/3VbN1kLw0XyRe+5HsJ7uPdGm2CfTa9oQiUx""#),
        ],
        ignored: &[
            "aws_secret_access_key = ${AWS_SECRET_ACCESS_KEY}",
            "secret_key = 0000000000000000000000000000000000000000",
            "secret_key: da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ],
        ..RULE
    },
    // AWS session tokens: base64 of a few hundred bytes under that name (STS, "Temporary security credentials").
    Rule {
        id: "aws-session-token",
        keywords: &["session_token", "sessiontoken", "security_token"],
        form: Form::Named { name: Name::Part, pattern: "[A-Za-z0-9/+=]{100,}", max_bytes: 256 },
        entropy: Some(4.0),
        check: Some(is_mixed),
        found: &[
            concat!(
                "aws_session_token=",
                "xaHnd1Oagpxx1hyebsSIuZxVc+Y+WRbGGK6yxFsTmDxb4pT6btey/u4x4q/pYSbQDurpA3dbwXn8NNQuAk3x6OpKG5VDgqw0f6j7kfzvlRC/uyWs6zs+RyRSH34eNofAbaRJTlTzuDA5RrPeNieeIj9xLOA4WTVKNQdl2fD+dgSnCJ1ufBRj"
            ),
            concat!(
                r#""SessionToken": ""#,
                r#"EespcBus3zA/rZajMppuZR/S5FDxXDZEaQbPZ8avj+C53syovPhkyQLpfR+ZbRB1l+kOsdZBsIAKWgXx9J4bSF+vey/fm+p60vAHOXXAiMRrXo0+hf8NyzXC7EPYudkcLhbTfGpV0Ja1t5gHJw4XvEzpfH2yr6uUHb4IP37NB2ZAlTMra6wgme9NEbYd88bnrHB9iw2fMcqLF2hBrpcOVhjbxSDDsb5g1Dl75C5o3rmiv2px=""#
            ),
        ],
        ignored: &["aws_session_token=FwoGZXIvYXdzE", "session_token: none"],
        ..RULE
    },
    // Amazon Bedrock API keys: long-lived ones begin with `ABSK`, short-lived ones with `bedrock-api-key-` and
    // base64 of `bedrock.amazonaws.com` (Bedrock user guide, "API keys").
    Rule {
        id: "aws-bedrock-key",
        keywords: &["ABSKQmVkcm9ja0FQSUtleS", "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t"],
        form: token_of(
            "(?:ABSK[A-Za-z0-9+/]{109,269}={0,2}|bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=]*)",
            300,
        ),
        entropy: Some(2.5),
        found: &[
            concat!(
                "AB",
                "SKQmVkcm9ja0FQSUtleSvzop6tCYmqCQAH4ZHZm7sYGBDWMCPY470RsK/GtTWUdg4pXYkwyTl6vcElXpRKs6OhPwrfcDHSAJyjNGQl2feIIN6BVKwXE3RN1y="
            ),
            concat!("bedrock-api-", "key-YmVkcm9jay5hbWF6b25hd3MuY29tsV9VE/JaDMiTAcYrmzxcPk5X1CdafQHXWKH1oceQ"),
        ],
        ignored: &["ABSKQmVkcm9ja0FQSUtleSshort", "bedrock-api-key-"],
        ..RULE
    },
    // Google API keys: `AIza` and 35 characters of base64url (Google Cloud, "API keys").
    Rule {
        id: "gcp-api-key",
        keywords: &["AIza"],
        form: token("AIza[A-Za-z0-9_-]{35}"),
        entropy: Some(3.5),
        check: Some(is_no_example),
        found: &[concat!("key=AI", "zaSyB4xN9vQ7LpR2wTzK8mHd3JfYc6Ua0EsGi&x=1")],
        ignored: &["AIzaSyXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX", "AIzaShort", "AIzaSy0123456789ABCDEFGHIJKLMNOPQRSTUVW"],
        ..RULE
    },
    // Google OAuth client secrets and tokens: `GOCSPX-` and 28 characters, `ya29.` and base64url, `1//0` and
    // base64url (Google Identity, "OAuth 2.0").
    Rule {
        id: "gcp-oauth-secret",
        keywords: &["GOCSPX-", "ya29.", "1//0"],
        form: token(r"(?:GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{30,}|1//0[A-Za-z0-9_-]{40,})"),
        found: &[
            concat!("GOC", "SPX-XZpo4RFYQSdLTNsHo17JC_88sQl4"),
            concat!("ya", "29.ChSK8SK9T80WtnZzqurKUvsOIslM175M3jIxuuFB91LFoSFc1Y-v7qSEbCdwy43yghUmkQTrTr-a6wfX"),
            concat!("1", "//0mVDOM_DJxKy2mjmuSW24dv8SkVonSOj4YmfgVcP3d0qaSLO5W-a8eRXE6P9g"),
        ],
        ignored: &["GOCSPX-short", "ya29.none", "1//0"],
        ..RULE
    },
    // Keys of Azure storage, Service Bus, Cosmos DB and others in connection strings: base64 of 32 or 64 bytes
    // (Azure, "Configure connection strings").
    Rule {
        id: "azure-storage-key",
        keywords: &["accountkey", "sharedaccesskey"],
        form: Form::Assigned {
            unless_after: "",
            lead: r#"(?i)(?:account|sharedaccess)key\\?["']?[ ]{0,2}[=:][ ]{0,2}\\?["']?"#,
            pattern: "[A-Za-z0-9+/]{42,88}={0,2}",
            max_bytes: 128,
        },
        severity: Severity::Critical,
        check: Some(is_mixed),
        found: &[
            concat!(
                "DefaultEndpointsProtocol=https;AccountName=a;Account",
                "Key=mGHKPZBnt/7pkOWLlgKNgJwnHVBENRwjYIYMrWriDmFXBg5vfjggP0vMB3jyjBDWZFtSrsK7HIqUQ9RocZd+s/==;EndpointSuffix=x"
            ),
            concat!(
                r#"{"AccountKey": ""#,
                r#"5QQkYOqQAVW3ToA33wQzahGImaHt8RVkGYZC7nqV2VADJHONXO1WMXsmVbgZteLc9dAtxJO8TLKsmWg3YzzYlq==""#
            ),
            concat!("SharedAccessKeyName=n;SharedAccess", "Key=fy0m+n/ebA2EAhbnnW8Y2gmMpDLmCvf2MNW76hrbs0I="),
        ],
        ignored: &["AccountKey=<key>;", "AccountKey=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"],
        ..RULE
    },
    // Client secrets of Microsoft Entra: three characters, a digit, `Q~`, 31 to 34 characters (Microsoft Purview,
    // "Azure AD client secret"). The four before the mark stay: they may be gone before it comes.
    Rule {
        id: "azure-client-secret",
        keywords: &["Q~"],
        form: Form::Token { behind: Behind::Entra, pattern: "Q~[A-Za-z0-9_~.-]{31,34}", whole: true, max_bytes: 256 },
        severity: Severity::Critical,
        check: Some(is_client_secret),
        found: &[
            concat!("client_secret=kT4", "2Q~JyA009LIQk1TgeJQefvGifNR5FqXetR8f"),
            concat!(r#""aB37"#, r#"Q~smEy5l0SN7Fu7VhWbkRFKsO1m3G5QWpp4R""#),
        ],
        ignored: &[
            "kT42Q~oooooooooooooooooooooooooooooooooo",
            "Q~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~",
            "a7vs9qLNmBTszmVN73DN7Q~kzY6IANj0N9Ju9YSwR0u689NVgzsAxeroo",
        ],
        ..RULE
    },
    // Signatures of Azure shared access and of workflows: `sig=` in the URL, SHA-256 in URL-encoded base64 (Azure
    // storage, "Create a service SAS") or base64url (Azure Logic Apps, "Request trigger").
    Rule {
        id: "azure-sas",
        keywords: &["sig="],
        form: Form::Assigned {
            unless_after: "",
            lead: "sig=",
            pattern: "(?:[A-Za-z0-9%+/]{43,70}(?:%3[Dd]|=)|[A-Za-z0-9_-]{43})",
            max_bytes: 128,
        },
        check: Some(is_mixed),
        found: &[
            concat!(
                "https://a.blob.core.windows.net/c?sv=2022-11-02&se=2030-01-01&sig",
                "=MWNj2HNyQOAMSQAHKhN4XnH2r7vlQuV6myctYyWR%2BjO%3D&x=1"
            ),
            concat!(
                "https://prod-1.westeurope.logic.azure.com/workflows/x/triggers/manual/paths/invoke?sig",
                "=6Qqq5X1wUGAJ7Wx98vjE6boQ-jQaJbO0HvrgYegRDLu"
            ),
        ],
        ignored: &["sig=abc", "&sig=%3D"],
        ..RULE
    },
    // Personal access tokens of Azure DevOps: 52 characters of base32, or 84 with `AZDO` in them, told by their name
    // (Azure DevOps, "Use personal access tokens").
    Rule {
        id: "azure-devops-token",
        keywords: &[
            "azure_devops",
            "azure-devops",
            "azuredevops",
            "vsts_",
            "system_accesstoken",
            "ado_pat",
            "ado_token",
            "azdo_",
            "azure devops pat",
        ],
        form: Form::Named { name: Name::Part, pattern: "(?:[a-z2-7]{52}|[A-Za-z0-9]{84})", max_bytes: 128 },
        found: &[
            concat!("ado_pat = '", "4d2omh7krrxemlwfhiijfcykwokvdv3mtlhj7aoygp4fkk4xqucz'"),
            concat!("AZURE_DEVOPS_EXT_PAT=", "knuehk2j4twhdnznwl6difw6wadeuvxhou4sbppdolhxqe4pq3ih"),
            concat!(
                r#"azureDevopsToken: ""#,
                r#"zIyhJNwuXS2DU09Eij4QnFcEGrgGrYDvRF9DUKgGrl9OnHyL8NX0AMqCp7n6nGMqzoeml9FvAiktAZDOn5ZG""#
            ),
        ],
        ignored: &["AZURE_DEVOPS_EXT_PAT=$(System.AccessToken)", "azure_devops_org: my-organisation"],
        ..RULE
    },
    // Keys of Azure functions: `?code=` in their URL (Azure functions, "Access keys").
    Rule {
        id: "azure-function-key",
        keywords: &["azurewebsites.net/api/"],
        form: Form::Assigned {
            unless_after: "",
            lead: r"azurewebsites\.net/api/[A-Za-z0-9_/-]{1,80}\?(?:[A-Za-z0-9_]{1,16}=[A-Za-z0-9_]{0,16}&)?code=",
            pattern: "[A-Za-z0-9_/=%-]{40,}",
            max_bytes: 128,
        },
        check: Some(is_mixed),
        found: &[concat!(
            "https://acme.azurewebsites.net/api/run?code",
            "=x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8f=="
        )],
        ignored: &["https://acme.azurewebsites.net/api/run?code=1", "https://acme.azurewebsites.net/api/run"],
        ..RULE
    },
    // Alibaba Cloud access key ids: `LTAI` and 12 to 20 letters and digits (Alibaba Cloud, "AccessKey pairs").
    Rule {
        id: "alibaba-access-key",
        keywords: &["LTAI"],
        form: token("LTAI[A-Za-z0-9]{12,20}"),
        check: Some(has_digit),
        found: &[concat!("LT", "AIi7ayuveUJcDrelLzN35Q")],
        ignored: &["LTAI", "LTAIxxxxxxxxxxxxxxxxxxxx"],
        ..RULE
    },
    // Tencent Cloud secret ids: `AKID` and 32 letters and digits (Tencent Cloud, "Access keys").
    Rule {
        id: "tencent-secret-id",
        keywords: &["AKID"],
        form: token("AKID[A-Za-z0-9]{32}"),
        check: Some(is_mixed),
        found: &[concat!("AK", "IDyZREiW3nU7BITpCV8eqjOStrky25yrfg")],
        ignored: &["AKID", "AKIDs of old"],
        ..RULE
    },
    // DigitalOcean personal, OAuth and refresh tokens (DigitalOcean release notes, "token prefixes").
    Rule {
        id: "digitalocean-token",
        keywords: &["dop_v1_", "doo_v1_", "dor_v1_"],
        form: token("do[opr]_v1_[a-f0-9]{64}"),
        severity: Severity::Critical,
        found: &[
            concat!("do", "p_v1_e9721294f711a1dd603ad72b1b26dd3df80a91b80f6872d23d2969764cdfd63f"),
            concat!("do", "r_v1_2c91c351401608d0447b1e515e1004b374aeb4025a00fe5f367d66bacd21a7c0"),
        ],
        ignored: &["dop_v1_", "dop_v1_0000000000000000000000000000000000000000000000000000000000000000"],
        ..RULE
    },
    // Cloudflare Origin CA keys: `v1.0-`, 24 and 146 hexadecimal digits (Cloudflare docs, "Origin CA keys").
    Rule {
        id: "cloudflare-origin-key",
        keywords: &["v1.0-"],
        form: token(r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}"),
        found: &[concat!(
            "v1",
            ".0-053221e3bb578b7b0cf27b6d-3a23a65be35d1c27ef339e5f4ec9dc70743a85a1d7d658436fbf7d0ccd5dde6b8e327de879b4720d3e3e41cf2a908034fad5993a57fc8b95ea6e30caee235f3d733596cf4b5c55731c"
        )],
        ignored: &["v1.0-rc1", "v1.0-0000000-dirty"],
        ..RULE
    },
    // Heroku API keys since 2024: `HRKU-` and base64url (Heroku dev centre, "OAuth").
    Rule {
        id: "heroku-key",
        keywords: &["HRKU-"],
        form: token("HRKU-[A-Za-z0-9_-]{36,}"),
        found: &[concat!("HR", "KU-AAYYCKril9Ki-0l3hNCaNwQjWKkxUEa5PbIPGj0gsZdpBt3uPiQPyvyPrArN")],
        ignored: &["HRKU-none"],
        ..RULE
    },
    // Fly.io access tokens and macaroons (Fly docs, "Access tokens").
    Rule {
        id: "flyio-token",
        keywords: &["fo1_", "fm1_", "fm1a_", "fm1r_", "fm2_"],
        form: token("(?:fo1_[A-Za-z0-9_-]{43}|fm[12][ar]?_[A-Za-z0-9+/=]{100,})"),
        found: &[
            concat!("fo", "1_ti-F2pwKmnLrE2h-17XvWHu0fuvIxqNYASO6MGY54vK"),
            concat!(
                "FlyV1 fm",
                "2_iMy9mZqRVxVBJFozGxU1srqmtGBq5VnRL8lKf7/AtwDmR/CXNw3U1zf0fu9lpPhSWA8q2/mhc5PyZHHee7y88cIAlwHXtonlYFGDTASANASYKVFj8FQr5J0GPRoUi3/Ylxrq6+2f/hrn14X+6tzJmC5ghmb1QozY"
            ),
        ],
        ignored: &["fo1_0000000000000000000000000000000000000000000", "fm2_short"],
        ..RULE
    },
    // Netlify personal access tokens: `nfp_` and 36 letters and digits (Netlify docs, "API access").
    Rule {
        id: "netlify-token",
        keywords: &["nfp_"],
        form: token("nfp_[A-Za-z0-9]{36}"),
        found: &[concat!("nf", "p_Qe31VfpTEf0H9z7McGgEvxqaczE7PTdYJMaZ")],
        ignored: &["nfp_short"],
        ..RULE
    },
    // Render API keys: `rnd_` and letters and digits (Render docs, "API").
    Rule {
        id: "render-key",
        keywords: &["rnd_"],
        form: token("rnd_[A-Za-z0-9]{28,}"),
        check: Some(has_digit),
        found: &[concat!("rn", "d_rcb3s4BRyoYMWvvDZS05Y90kYYblxdXZ")],
        ignored: &["rnd_seed"],
        ..RULE
    },
    // Supabase access tokens and secret keys (Supabase docs, "API keys").
    Rule {
        id: "supabase-token",
        keywords: &["sbp_", "sb_secret_"],
        form: token("(?:sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{22,})"),
        found: &[
            concat!("sb", "p_157bd339d9d41ed662d0041269a4310981eb7545"),
            concat!("sb", "_secret_OExaVUz8A6Xa8lTwNtGBx4x-vX5ohVV"),
        ],
        ignored: &["sbp_short", "sb_publishable_x7Kq2LmV9nRt4WzY8bCd1F"],
        ..RULE
    },
    // Scalingo API tokens: `tk-us-` and 48 characters (Scalingo docs, "API").
    Rule {
        id: "scalingo-token",
        keywords: &["tk-us-"],
        form: token("tk-us-[A-Za-z0-9_-]{48}"),
        found: &[concat!("tk-", "us-2kuITjkDmY9BaVAHSfBYvE3wmSazicEe5p9vd3jYt6OCHHpJ")],
        ignored: &["tk-us-short"],
        ..RULE
    },
    // PlanetScale passwords, service tokens and OAuth tokens (PlanetScale docs, "Service tokens").
    Rule {
        id: "planetscale-token",
        keywords: &["pscale_pw_", "pscale_tkn_", "pscale_oauth_"],
        form: token("pscale_(?:pw|tkn|oauth)_[A-Za-z0-9=._-]{32,64}"),
        found: &[
            concat!("pscale", "_tkn_cOIlTVVvs4xadAAZxTxliBJ4Ko2btdqkpimu6ZScM1A"),
            concat!("pscale", "_pw_TMX5vQrk1cykX166Fc3khDKP19lX9TEs2uccnohUiep"),
        ],
        ignored: &["pscale_tkn_"],
        ..RULE
    },
    // Yandex Cloud API keys, IAM tokens and static keys (Yandex Cloud docs, "Authentication").
    Rule {
        id: "yandex-token",
        keywords: &["AQVN", "YCA", "YCB", "YCD", "YCE", "YCM", "YCN", "YCO", "YCP", "YCR", "YCS", "t1."],
        form: token_of(
            r"(?:AQVN[A-Za-z0-9_-]{35,38}|YC[A-Za-z0-9_-]{38}|t1\.[A-Z0-9a-z_-]{1,200}={0,2}\.[A-Za-z0-9_-]{86}={0,2})",
            300,
        ),
        check: Some(is_mixed),
        found: &[
            concat!("AQ", "VN0IYftM_82TogTu2x4Fz6NF7HZaMLPdityqkG"),
            concat!("YC", "A20C2776umD3z1W4F7deZRCUsnO5WiV1Ggnaeq"),
            concat!(
                "t1",
                ".9eueI78ckRsJqjuTP9pegQDIk0pMH3JfNV6My0fkwBrA9GZMEt2F93trOxGejChB.jrf_s1g3kvYMK_dYZ7pBBWnIsxP1wrjtdxuYahPCgAGp5mpMaIhW6_1-7sBT2JZ41rTT2IDjF7ZleXxT6GHLwH"
            ),
        ],
        ignored: &["AQVN", "YCbCr", "t1.start"],
        ..RULE
    },
    // Databricks personal access tokens: `dapi` and 32 hexadecimal digits (Databricks docs, "Authentication").
    Rule {
        id: "databricks-token",
        keywords: &["dapi"],
        form: token("dapi[a-f0-9]{32}(?:-[0-9])?"),
        severity: Severity::Critical,
        found: &[
            concat!("da", "pic0809b00d5839b2a4a6dfcfd71aa42c8"),
            concat!("da", "pi60b70cbb77c6309a12e06963e5494109-2"),
        ],
        ignored: &["dapi", "dapi00000000000000000000000000000000"],
        ..RULE
    },
    // Pulumi access tokens: `pul-` and 40 hexadecimal digits (Pulumi docs, "Access tokens").
    Rule {
        id: "pulumi-token",
        keywords: &["pul-"],
        form: token("pul-[a-f0-9]{40}"),
        found: &[concat!("pu", "l-c4681d8cc15c068f83c3f8a373463acdf518affe")],
        ignored: &["pul-request", "impul-95ffad92d7f7f5977ba85ee3cca1c8117ea0bdbc"],
        ..RULE
    },
    // Terraform Cloud tokens: 14 characters, `.atlasv1.`, 60 or more (HCP Terraform docs, "API tokens"). The
    // characters before the mark stay.
    Rule {
        id: "terraform-token",
        keywords: &["atlasv1."],
        form: Form::Token {
            behind: Behind::Fourteen,
            pattern: r"atlasv1\.[A-Za-z0-9=_-]{60,}",
            whole: true,
            max_bytes: 256,
        },
        severity: Severity::Critical,
        found: &[concat!(
            "4JJHY4oGonbXQ9.atl",
            "asv1.x7OUgIwe1J4rNrnPWM5dcjQ9f7tJBzR5TJhWpu0fJOG7lpcjV3BmsnvmQkv9WSkKc9I"
        )],
        ignored: &[
            "x.atlasv1.",
            "abc.atlasv1.Sw91cx1r5FhOsaz7V66pP9se2UbsWFeu-T3A5HPYALf0z2UZjcSD8tFzRuzUgr5m4Pp",
            "x7Kq2LmV9nRt4Watlasv1.hhyhOyAl-15htuNgpPfD6QaCoe5RgtYALNp5SSgXzYjJM1OXO1asxXMXg6c9-S3jGD2",
        ],
        ..RULE
    },
    // HashiCorp Vault service, batch and recovery tokens, and service tokens of before 1.10 (Vault docs, "Tokens").
    Rule {
        id: "vault-token",
        keywords: &["hvs.", "hvb.", "hvr."],
        form: token(r"hv[sbr]\.[A-Za-z0-9_-]{24,}"),
        severity: Severity::Critical,
        found: &[
            concat!(
                "hv",
                "s.vtEYHP402TEgSVXtf-4ieptKvwBGx27gxHp_5SQRYYHI-mXruwmnR32iDckCuza_p9U-lVmgSJrr5AkiVCSkRpSDuo"
            ),
            concat!(
                "hv",
                "b.47A7tu6f9eKDLMN6cO1Ek7FNr3wuWzrj_bTShdvhfeTxqDzLu1ESFfX1HbzljEf3dc752aJCUAGy9be21KYbMUDJce7ZQZvYPMyBbg9oLOKXbCJ6CWlKnNIZL-cGjnypJW3U2zr5Lo"
            ),
        ],
        ignored: &["hvs.", "hvs.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"],
        ..RULE
    },
    // The same before Vault 1.10: `s.`, `b.` or `r.` and 24 letters and digits.
    Rule {
        id: "vault-legacy-token",
        keywords: &["s."],
        form: token(r"s\.[A-Za-z0-9]{24}"),
        entropy: Some(3.5),
        check: Some(is_mixed),
        found: &[concat!("s.", "Q5ylS2rPc1BlQygfuCl3U3pE")],
        ignored: &[
            "s.ALLOFITINCAPITALLETTERSX",
            "s.configurationOfTheWindow",
            "this.x7Kq2LmV9nRt4WzY8bCd1FgH",
            "s.readTheWholeOfTheFile2",
        ],
        ..RULE
    },
    // Doppler tokens: `dp.`, the kind, 40 or more letters and digits (Doppler docs, "Auth token formats").
    Rule {
        id: "doppler-token",
        keywords: &["dp.pt.", "dp.st.", "dp.sa.", "dp.ct.", "dp.scim.", "dp.audit."],
        form: token(r"dp\.(?:pt|st|sa|ct|scim|audit)\.(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}"),
        severity: Severity::Critical,
        found: &[
            concat!("dp", ".pt.c4WB0m6Zyp9fKfkcl7wsCcVifUbb4NbNxIB6yheijR6"),
            concat!("dp", ".st.prd.3eAF2oRPAbZuCWOq5snbAzjtcXNxg0A0WnjT4oQUE0U"),
        ],
        ignored: &["dp.pt.short"],
        ..RULE
    },
    // 1Password secret keys `A3-…` and service account tokens `ops_eyJ…` (1Password security design; developer docs,
    // "Service accounts").
    Rule {
        id: "onepassword-key",
        keywords: &["A3-", "ops_eyJ"],
        form: token_of(
            "(?:A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})-[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{5}|ops_eyJ[A-Za-z0-9+/]{200,}={0,3})",
            512,
        ),
        severity: Severity::Critical,
        found: &[
            concat!("A3", "-RIO9CH-VOQBL2-PWZCZ-1UZ39-T05PB-YZ8MY"),
            concat!(
                "ops",
                "_eyJG6CdFQi95j6NEO2As46KGVVmJ6i9HqCnvk9ZLhPWCQnbJQFRb3KHt8YBSMjO1jXB5Zn3rwmrQd9s+nlou/xnNER3AxQssecYrs8ECtdUpiBiQpOlAW7i3pm29rCtGjZN+Te8rP4dOUw6M/yrJlJOZOvTVW73uMtaXGCBssZECx020UtXxI12CG4TQxeYHxy87+o60Nsu3i2hxC9LsFG78pP7jSVBHU4BZLeXtxqvr16Lzskt5iPeoRR+5d1aeDF/PO40"
            ),
        ],
        ignored: &["A3-AAAAAA-AAAAAA-AAAAA-AAAAA-AAAAA-AAAAA", "A3-paper", "ops_eyJ"],
        ..RULE
    },
    // Infracost API keys: `ico-` and 32 letters and digits (Infracost docs, "API key").
    Rule {
        id: "infracost-key",
        keywords: &["ico-"],
        form: token("ico-[A-Za-z0-9]{32}"),
        check: Some(is_mixed),
        found: &[concat!("ic", "o-FTNyiacjhIJpIpKRHzmDsglhD8ICYcq3")],
        ignored: &["ico-00000000000000000000000000000000", "logo.ico-d23b954753f1f91d5c4c4d6e074d4058.png"],
        ..RULE
    },
    // Harness personal and service account keys: `pat.` or `sat.`, account, token and secret (Harness docs, "API
    // keys").
    Rule {
        id: "harness-key",
        keywords: &["pat.", "sat."],
        form: token(r"(?:pat|sat)\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}"),
        found: &[concat!("pa", "t.Kzf9tb88mvqoFDyVsqnfPB.9Kc3k1n2vBJ7j5TbR5qJsBP0.IVpb6dCX8MOayYzOPirH")],
        ignored: &["pat.com", "sat.a.b"],
        ..RULE
    },
    // Prefect Cloud keys: `pnu_` and 36 letters and digits (Prefect docs, "API keys").
    Rule {
        id: "prefect-key",
        keywords: &["pnu_", "pnb_"],
        form: token("pn[ub]_[A-Za-z0-9]{36}"),
        found: &[concat!("pn", "u_c0qOUG2cR8shpmfE864c1k24LQPLKNVB4A71")],
        ignored: &["pnu_000000000000000000000000000000000000"],
        ..RULE
    },
    // OpenShift OAuth tokens: `sha256~` and 43 characters of base64url (OpenShift docs, "User-owned OAuth access
    // tokens").
    Rule {
        id: "openshift-token",
        keywords: &["sha256~"],
        form: token("sha256~[A-Za-z0-9_-]{43}"),
        entropy: Some(3.5),
        check: Some(is_mixed),
        found: &[concat!("sha", "256~NZ1JXtQ5-kNaOUIoxEA5wx2uavyph7PgoNuvjNCPtdk")],
        ignored: &["sha256~your-token-comes-here-your-token-comes-here"],
        ..RULE
    },
    // Octopus Deploy API keys: `API-` and 26 capitals and digits (Octopus docs, "API keys").
    Rule {
        id: "octopus-key",
        keywords: &["API-"],
        form: token("API-[A-Z0-9]{26}"),
        check: Some(has_digit),
        found: &[concat!("AP", "I-MK3QNZHN9XNO2IOZMIK3AXIMNO")],
        ignored: &["API-KEY", "https://example.org/API-674D36B3A6C904DA13DE2C904EFAD952", "API-ReferenceForBeginners"],
        ..RULE
    },
];
