//! Keys of payment services and shops.

use super::{
    Behind, Form, RULE, Rule,
    checks::{has_digit, is_mixed},
    token,
};
use crate::sentinel::Severity;

pub(super) const RULES: &[Rule] = &[
    // Stripe's secret and restricted keys, live and test, and webhook secrets (Stripe docs, "API keys").
    Rule {
        id: "stripe-key",
        keywords: &["sk_live_", "rk_live_", "sk_test_", "rk_test_", "sk_prod_", "rk_prod_", "whsec_"],
        form: token("(?:[sr]k_(?:live|test|prod)_|whsec_)[A-Za-z0-9+/=]{10,}"),
        severity: Severity::Critical,
        check: Some(has_digit),
        found: &[
            concat!("sk", "_live_51Qx7KLmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
            concat!("rk", "_live_51Qx7KLmV9nRt4WzY8bCd1FgH"),
            concat!("wh", "sec_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE"),
        ],
        ignored: &["sk_live_xxxxxxxxxxxxxxxxxxxxxxxx", "task_live_51Qx7KLmV9nRt4WzY8bCd1FgH", "sk_test_me"],
        ..RULE
    },
    // Square access tokens and OAuth secrets (Square developers, "Access tokens").
    Rule {
        id: "square-token",
        keywords: &["EAAA", "sq0atp-", "sq0csp-", "sq0idp-"],
        form: token("(?:EAAA[A-Za-z0-9_-]{22,60}|sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43})"),
        check: Some(is_mixed),
        found: &[
            concat!("EA", "AABeFRIs6_Lb6tMboObJhlxXWAtbAffcAHfjqqur6r_FVqOsNEMBaEbwTr0Rvk"),
            concat!("sq", "0atp-Gm58VfDIihQ3ik6fdQyBgQ"),
            concat!("sq", "0csp-DbQFYBJgNuoSu7rcHAa9x4cZ4J23Ak1LtqLWZCkMeL7"),
        ],
        ignored: &["EAAA", "sq0atp-", "sha256:eaaa3f2150ce046b11fb205af43fc0324ef11b1629a8cafed8e8bf7448da539c"],
        ..RULE
    },
    // Braintree and PayPal access tokens: `access_token$`, the environment, ids and 32 hexadecimal digits (Braintree
    // docs, "Access tokens").
    Rule {
        id: "braintree-token",
        keywords: &["access_token$"],
        form: token(r"access_token\$(?:production|sandbox)\$[a-z0-9]{16}\$[a-f0-9]{32}"),
        severity: Severity::Critical,
        found: &[concat!("access", "_token$production$ajevi0sjp6nl111u$20327a4f6d05668998d238b6a22d0052")],
        ignored: &["access_token$production$", "$access_token"],
        ..RULE
    },
    // Shopify access tokens of apps of every kind and shared secrets (Shopify docs, "Access tokens").
    Rule {
        id: "shopify-token",
        keywords: &["shpat_", "shpca_", "shppa_", "shpss_"],
        form: token("shp(?:at|ca|pa|ss)_[A-Za-z0-9]{32,64}"),
        severity: Severity::Critical,
        found: &[
            concat!("shp", "at_ca1785e648a75e05ff11de9f4969fe4b"),
            concat!("shp", "ss_0e22a1a519a6b3db1aa7b45e50f3ac05"),
            concat!("shp", "at_YEIi75qB4sA9Q0NksyRRM3NQTCmyv4mwaQwSs92m"),
        ],
        ignored: &["shpat_", "shpat_00000000000000000000000000000000"],
        ..RULE
    },
    // Razorpay keys: `rzp_live_` and 14 letters and digits (Razorpay docs, "API keys").
    Rule {
        id: "razorpay-key",
        keywords: &["rzp_live_"],
        form: token("rzp_live_[A-Za-z0-9]{14}"),
        found: &[concat!("rzp", "_live_8mjp7WDBf3q3Vo")],
        ignored: &["rzp_live_"],
        ..RULE
    },
    // Flutterwave secret, encryption and public keys (Flutterwave docs, "API keys").
    Rule {
        id: "flutterwave-key",
        keywords: &["FLWSECK", "FLWPUBK"],
        form: token("FLW(?:SECK|PUBK)(?:_TEST)?-(?:[A-Fa-f0-9]{32}-X|[A-Fa-f0-9]{12})"),
        entropy: Some(2.5),
        found: &[
            concat!("FLW", "SECK_TEST-8b8d32c585dbcb806eac696c422d00ef-X"),
            concat!("FLW", "SECK_TEST-5ae1edb98ed9"),
        ],
        ignored: &["FLWSECK"],
        ..RULE
    },
    // EasyPost keys, production and test: `EZAK` or `EZTK` and 54 letters and digits (EasyPost docs,
    // "Authentication").
    Rule {
        id: "easypost-key",
        keywords: &["EZAK", "EZTK"],
        form: token("EZ[AT]K[A-Za-z0-9]{54}"),
        check: Some(has_digit),
        found: &[concat!("EZ", "AK8u52E2KR5dZqLWV1sc0AKn9NCKSE4f3DXxeKPSN21AhzT6eCVKzKMZ")],
        ignored: &["EZAK", "x9EZAKiyE8p7zmj5PnPEk96J0m8djiNwoRE6YH6i2HRdQxTxfQmSPWSpjKfG"],
        ..RULE
    },
    // Shippo tokens: `shippo_live_` or `shippo_test_` and 40 hexadecimal digits (Shippo docs, "Authentication").
    Rule {
        id: "shippo-token",
        keywords: &["shippo_live_", "shippo_test_"],
        form: token("shippo_(?:live|test)_[A-Fa-f0-9]{40}"),
        found: &[concat!("ship", "po_live_07ebd2c57b2b5453a95ff2f3a242cb235a01f9a1")],
        ignored: &["shippo_test_"],
        ..RULE
    },
    // Duffel tokens: `duffel_live_` or `duffel_test_` and 43 characters (Duffel docs, "Access tokens").
    Rule {
        id: "duffel-token",
        keywords: &["duffel_live_", "duffel_test_"],
        form: token("duffel_(?:live|test)_[A-Za-z0-9_=-]{43}"),
        found: &[concat!("duf", "fel_live_zAdqxvmnQ3QY1X4R_DEqKtbVYSMvb09RZ2g_Ys1_xMI")],
        ignored: &["duffel_test_"],
        ..RULE
    },
    // Plaid access tokens: `access-`, the environment, a UUID (Plaid docs, "Tokens").
    Rule {
        id: "plaid-token",
        keywords: &["access-sandbox-", "access-development-", "access-production-"],
        form: token(
            "access-(?:sandbox|development|production)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        ),
        found: &[concat!("access", "-production-d6871132-c3d4-75d8-0248-7b85d626a755")],
        ignored: &["access-production-servers"],
        ..RULE
    },
    // Facebook access tokens: `EAA` and a hundred or more letters and digits (Meta developers, "Access tokens").
    Rule {
        id: "facebook-token",
        keywords: &["EAA"],
        form: token("EAA[A-Za-z0-9]{90,}"),
        entropy: Some(4.0),
        check: Some(is_mixed),
        found: &[concat!(
            "EA",
            "Ai4MJryzsn28obhQyxiooOCU3YROmT800R62MH5O6zk5dXckDQH1O91otuB323foc1sHa2Wv5lrhTfy109NG8ixi80zLsZcZATIowdhvRlH5CypS4b1Iydr1rVcAjCS12qkAG3hiWzLgMDvGVKKmQOghKaBGAoAabjORLPLPKOFAi82rhLRvs"
        )],
        ignored: &["EAA", "eaa322c852f1e6fdc9bcd94fcbd3fd33545dce5"],
        ..RULE
    },
    // Facebook app access tokens: the app's number, a bar, 27 characters (Meta developers, "Access tokens").
    Rule {
        id: "facebook-app-token",
        keywords: &["|"],
        form: Form::Token {
            behind: Behind::AppNumber,
            pattern: r"\|([A-Za-z0-9_-]{26,27})",
            whole: true,
            max_bytes: 256,
        },
        entropy: Some(3.5),
        check: Some(is_mixed),
        found: &[concat!("588763106648071|", "nl9_diw_LC8psS-l_PvAI1tM3cJ")],
        ignored: &["|---------------------------|", "1|x7Kq2LmV9nRt4WzY8bCd1FgH6jP"],
        ..RULE
    },
];
