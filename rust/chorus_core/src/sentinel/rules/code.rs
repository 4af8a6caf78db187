//! Tokens of hosts of code and of what builds, checks and tests it.

use super::{
    Form, RULE, Rule,
    checks::{is_basic, is_credential, is_mixed, is_no_placeholder},
    token, token_of,
};
use crate::sentinel::Severity;

pub(super) const RULES: &[Rule] = &[
    // GitHub's classic tokens: `ghp_`, `gho_`, `ghu_`, `ghs_`, `ghr_` and at least 36 letters and digits ("Behind
    // GitHub's new authentication token formats", 2021).
    Rule {
        id: "github-token",
        keywords: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        form: token("gh[pousr]_[A-Za-z0-9]{36,}"),
        severity: Severity::Critical,
        found: &[
            concat!("gh", "p_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
            concat!("https://gh", "s_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw@github.com/o/r"),
            concat!("\x1b[32mgh", "o_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw\x1b[0m"),
            concat!(r"token\ngh", "u_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
        ],
        ignored: &[
            "ghp_short",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "highp_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw",
        ],
        ..RULE
    },
    // GitHub's fine-grained tokens: `github_pat_`, 22 characters, `_`, 59 characters (GitHub changelog, October
    // 2022).
    Rule {
        id: "github-fine-grained-token",
        keywords: &["github_pat_"],
        form: token("github_pat_[A-Za-z0-9_]{36,}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[concat!(
            "github",
            "_pat_11ABCDEFG0x7Kq2LmV9nRt_4WzY8bCd1FgH6jPs3TuE5aQwX2cV7nM9kL0pJ4hG8fD6sA3qW1eR5tY"
        )],
        ignored: &["github_pat_", "github_pat_example_token_goes_here"],
        ..RULE
    },
    // GitLab's tokens of every kind: personal, deploy, runner, job, trigger, feed, mail, agent, SCIM, OAuth
    // application, feature flags (GitLab docs, "Token overview: token prefixes").
    Rule {
        id: "gitlab-token",
        keywords: &[
            "glpat-",
            "gldt-",
            "glrt-",
            "glrtr-",
            "glcbt-",
            "glptt-",
            "glft-",
            "glimt-",
            "glagent-",
            "gloas-",
            "glsoat-",
            "glffct-",
            "glwt-",
            "GR1348941",
        ],
        form: token("(?:gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct|wt)-|GR1348941)[A-Za-z0-9_.-]{20,}"),
        severity: Severity::Critical,
        found: &[
            concat!("PRIVATE-TOKEN: gl", "pat-x7Kq2LmV9nRt4WzY8bCd"),
            concat!("gl", "rt-t1_2BIKh35djSGDRN3LJgoAhgo4BsN.01.ojn02f5xd"),
            concat!("gl", "oas-a479dbb1e3c94f299c11abe32f618b0770039e4f7eafda1fb8f0afdbc3399ec1"),
            concat!("gl", "ft-DwLRGyu5RYmw0_I0HaXp"),
        ],
        ignored: &["glpat-xxxxxxxxxxxxxxxxxxxx", "glpat-", "glrt-short"],
        ..RULE
    },
    // GitLab's session cookie: 32 hexadecimal digits (GitLab docs, "Cookies").
    Rule {
        id: "gitlab-session",
        keywords: &["_gitlab_session="],
        form: Form::Assigned { unless_after: "", lead: "_gitlab_session=", pattern: "[a-f0-9]{32}", max_bytes: 64 },
        found: &[concat!("Cookie: _gitlab", "_session=73f64950665159dfd29a3db94ada4bf6; x")],
        ignored: &["_gitlab_session=none"],
        ..RULE
    },
    // Bitbucket app passwords and access tokens, and Atlassian API tokens: `ATBB`, `ATCTT3`, `ATATT3` (Atlassian,
    // "API token prefixes").
    Rule {
        id: "bitbucket-token",
        keywords: &["ATBB", "ATCTT3", "ATATT3"],
        form: token("(?:ATBB[A-Za-z0-9_=.-]{28,}|AT(?:CT|AT)T3[A-Za-z0-9_=-]{60,})"),
        severity: Severity::Critical,
        found: &[
            concat!("AT", "BBUOGsyBjwagDjzkld39BJ925P0CMvAYgU"),
            concat!(
                "AT",
                "ATT3xFfGF0w0sBBcArQ3KHkULD83snScBIOuRWaMz6s7nUbOJLJFqrvNyhZJnUXCZ9lBnzL3ff6T0jK8ls8pxMWOR-TbyPWXqXAgqxikEcWnWXiuC1NqjtGH-WSVN5G3zDlYpbNgf-5czUW6qfLx-tPkn_zvUJxy4uVD6-8Dmgjcd_WE8f8s=81AD50F9"
            ),
        ],
        ignored: &["ATBB", "ATATT3xFfGF0"],
        ..RULE
    },
    // npm access tokens: `npm_` and 36 letters and digits, six of them a checksum (GitHub blog, "npm's new token
    // format").
    Rule {
        id: "npm-token",
        keywords: &["npm_"],
        form: token("npm_[A-Za-z0-9]{36}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[concat!("//registry.npmjs.org/:_authToken=np", "m_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw")],
        ignored: &["npm_config_registry", "npm_lifecycle_event", "npm_package_dependencies_typescript_version_range"],
        ..RULE
    },
    // Credentials in .npmrc: `_authToken`, `_auth` in base64, `_password` in base64 (npm docs, "npmrc").
    Rule {
        id: "npmrc-password",
        keywords: &[":_authtoken", ":_auth", ":_password"],
        form: Form::Assigned {
            unless_after: "",
            lead: r#"(?i):(?:_authtoken|_auth|_password)[ \t]{0,4}=[ \t]{0,4}["']?"#,
            pattern: "[A-Za-z0-9+/=_.-]{12,}",
            max_bytes: 256,
        },
        severity: Severity::Critical,
        check: Some(is_credential),
        found: &[
            concat!("//npm.example.org/:_auth", "Token=89c6f4cb-dd80-ce84-8fbc-a4c4c97595b4"),
            concat!("//npm.example.org/:_auth", "=dXNlcjpwYXNzd29yZDEyMw=="),
        ],
        ignored: &["_authToken=${NPM_TOKEN}", ":_auth=none", "session_auth=s3_disable_express_session_auth"],
        ..RULE
    },
    // PyPI upload tokens: `pypi-` before a base64 macaroon whose location is pypi.org or test.pypi.org (PyPI help,
    // "API tokens").
    Rule {
        id: "pypi-token",
        keywords: &["pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZ"],
        form: token("pypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZ)[A-Za-z0-9_-]{50,}"),
        severity: Severity::Critical,
        entropy: None,
        found: &[concat!(
            "py",
            "pi-AgEIcHlwaS5vcmcCJDU0ZjY2ZjMzLTk1YjQtNGE2Ny1hMjVlLWQ4ZjU5OTk3MTExMgACKlszLCJx7Kq2LmV9nRt4"
        )],
        ignored: &["pypi-AgEIcHlwaS5vcmc", "pypi-server"],
        ..RULE
    },
    // RubyGems API keys: `rubygems_` and 48 hexadecimal digits (RubyGems guides, "API key scopes").
    Rule {
        id: "rubygems-token",
        keywords: &["rubygems_"],
        form: token("rubygems_[a-f0-9]{48}"),
        severity: Severity::Critical,
        found: &[concat!("ruby", "gems_4d09289a2875d823701be41dc1ca19d77e1c44eac0605fcb")],
        ignored: &["rubygems_version"],
        ..RULE
    },
    // crates.io tokens: `cio` and 32 letters and digits (crates.io source, "token").
    Rule {
        id: "cargo-token",
        keywords: &["cio"],
        form: token("cio[A-Za-z0-9]{32}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        check: Some(is_mixed),
        found: &[concat!("ci", "ob6eoTd1qrTsQVD5xgLjlF9AtSyhb9cZw")],
        ignored: &["cio", "ciocccccccccccccccccccccccccccccccc"],
        ..RULE
    },
    // NuGet.org API keys: `oy2` and 43 letters and digits (NuGet docs, "API keys").
    Rule {
        id: "nuget-key",
        keywords: &["oy2"],
        form: token("oy2[a-z0-9]{43}"),
        severity: Severity::Critical,
        entropy: Some(3.5),
        found: &[concat!("oy", "203llryjzvvr3lgp9lno18f6iu0jvbss78f51edthm76")],
        ignored: &["oy2", "oy2000000000000000000000000000000000000000000"],
        ..RULE
    },
    // Passwords in NuGet.config: `<add key="ClearTextPassword" value="…" />` (NuGet docs, "nuget.config reference").
    Rule {
        id: "nuget-password",
        keywords: &[r#"password""#, r#"password\"#],
        form: Form::Assigned {
            unless_after: "",
            lead: r#"(?i)password\\{0,7}"[ ]{1,4}value[ ]{0,4}=[ ]{0,4}\\{0,7}""#,
            pattern: r#"([^"\s\\]{8,128})["\\]"#,
            max_bytes: 160,
        },
        entropy: Some(1.5),
        check: Some(is_no_placeholder),
        found: &[concat!(r#"<add key="ClearText"#, r#"Password" value="correct-h0rse" />"#)],
        ignored: &[
            r#"<add key="ClearTextPassword" value="%Secret%" />"#,
            r#"<add key="ClearTextPassword" value="oooooooooo" />"#,
        ],
        ..RULE
    },
    // Docker Hub personal and organisation access tokens (Docker docs, "Access tokens").
    Rule {
        id: "docker-hub-token",
        keywords: &["dckr_pat_", "dckr_oat_"],
        form: token("dckr_[po]at_[A-Za-z0-9_-]{27,}"),
        severity: Severity::Critical,
        found: &[
            concat!("dckr", "_pat_4qbjVeECL_OFGRgYVig5eqosIii"),
            concat!("dckr", "_oat_aqJz2BFwJjrvsahxXkLvQH5nV-wENqzR"),
        ],
        ignored: &["dckr_pat_"],
        ..RULE
    },
    // Credentials in Docker's config.json: `"auth"`, base64 of user and password (Docker docs, "docker login").
    Rule {
        id: "docker-config-auth",
        keywords: &[r#""auth""#, r#""auth\"#],
        form: Form::Assigned {
            unless_after: "",
            lead: r#""auth\\{0,7}"[ \t]{0,4}:[ \t]{0,4}\\{0,7}""#,
            pattern: "[A-Za-z0-9+/]{12,}={0,2}",
            max_bytes: 512,
        },
        severity: Severity::Critical,
        check: Some(is_basic),
        found: &[
            concat!(r#"{"auths": {"r.example.org": {"auth"#, r#"": "dXNlcjpwYXNzd29yZDEyMw=="}}}"#),
            concat!(r#"{\"auths\":{\"r.example.org\":{\"auth"#, r#"\":\"dXNlcjpwYXNzd29yZDEyMw==\"}}}"#),
        ],
        ignored: &[r#""auth": "oauth2""#, r#""auth": true"#, r#""auth": "none-of-your-business""#],
        ..RULE
    },
    // The whole of Docker's config.json in base64, as secrets of Kubernetes and variables keep it: `{"auths":` first
    // (Kubernetes docs, "Pull an image from a private registry").
    Rule {
        id: "docker-config-in-base64",
        keywords: &["eyJhdXRocyI6", "ewogICJhdXRocyI6", "ewoJImF1dGhzIj"],
        form: token_of("(?:eyJhdXRocyI6|ewogICJhdXRocyI6|ewoJImF1dGhzIj)[A-Za-z0-9+/_-]{40,}={0,2}", 512),
        severity: Severity::Critical,
        found: &[concat!(
            ".dockerconfigjson: eyJhdXRo",
            "cyI6eyJyLmV4YW1wbGUub3JnIjp7ImF1dGgiOiJkWE5sY2pwd1lYTnpkMjl5WkRFeU13PT0ifX19"
        )],
        ignored: &["eyJhdXRocyI6", "eyJhdXRocyI6e30="],
        ..RULE
    },
    // Clojars deploy tokens: `CLOJARS_` and 60 letters and digits (Clojars wiki, "Deploy tokens").
    Rule {
        id: "clojars-token",
        keywords: &["CLOJARS_"],
        form: token("CLOJARS_[A-Za-z0-9]{60}"),
        severity: Severity::Critical,
        found: &[concat!("CLO", "JARS_bgtp1rlqcih7bue8srktg2pcarl5npdmqg85z8dzl669cwnx7q81h2dqos5k")],
        ignored: &["CLOJARS_USERNAME"],
        ..RULE
    },
    // Artifactory API keys `AKCp…` and reference tokens, base64 of `refto` (JFrog docs, "Access tokens").
    Rule {
        id: "artifactory-token",
        keywords: &["AKCp", "cmVmd"],
        form: token("(?:AKCp[A-Za-z0-9]{69}|cmVmd[A-Za-z0-9]{59})"),
        severity: Severity::Critical,
        entropy: Some(4.0),
        found: &[
            concat!("AK", "CpghnCqfGBmXlL8jorMTPiGdVgga4X6EkT78iDd0jxoyNFKGKphykeCHN49UMInPK2lPz93"),
            concat!("cm", "Vmdit0HGm8BCzzLVhDuFAmkyD5P5ohT5dWXafFVny5TjKjZFCwdms3Q2YPUHQR"),
        ],
        ignored: &[
            "AKCp000000000000000000000000000000000000000000000000000000000000000000000",
            "xAKCpR4SQuDPMoLCk4Abey9DEYJRERZWnXm46DgOvFBAdloHDFDCelXQxembHT36bCqdnvMOZD",
        ],
        ..RULE
    },
    // SonarQube user, project and global tokens: `squ_`, `sqp_`, `sqa_` and 40 hexadecimal digits (Sonar docs,
    // "Generating tokens").
    Rule {
        id: "sonar-token",
        keywords: &["squ_", "sqp_", "sqa_"],
        form: token("sq[upa]_[A-Za-z0-9]{40}"),
        found: &[concat!("sq", "p_e5e1576628f1350930119d8b9382a10a7a770643")],
        ignored: &["sqp_short"],
        ..RULE
    },
    // Sourcegraph access tokens: `sgp_`, an instance, 40 hexadecimal digits (Sourcegraph docs, "Access tokens").
    Rule {
        id: "sourcegraph-token",
        keywords: &["sgp_"],
        form: token("sgp_(?:[A-Fa-f0-9]{16}_|local_)?[A-Fa-f0-9]{40}"),
        found: &[
            concat!("sg", "p_316bb8488f712c39_4e59c7825ed35e416cfca274ee6def9ff21ff4ae"),
            concat!("sg", "p_local_5e6fc4f8585f4092307cab0e795da1fec7b06454"),
        ],
        ignored: &["sgp_0000000000000000000000000000000000000000", "sgp_local"],
        ..RULE
    },
    // Buildkite API tokens: `bkua_` and 40 hexadecimal digits (Buildkite docs, "Managing API access tokens").
    Rule {
        id: "buildkite-token",
        keywords: &["bkua_"],
        form: token("bkua_[a-f0-9]{40}"),
        found: &[concat!("bk", "ua_89e980f01f1b94c7896e3cd1daec540d57a5f4fa")],
        ignored: &["bkua_"],
        ..RULE
    },
    // CircleCI personal and project tokens: `CCIPAT_`, `CCIPRJ_` (CircleCI docs, "Managing API tokens").
    Rule {
        id: "circleci-token",
        keywords: &["CCIPAT_", "CCIPRJ_"],
        form: token("CCIP(?:AT|RJ)_[A-Za-z0-9]{22}_[A-Fa-f0-9]{40}"),
        found: &[concat!("CCI", "PAT_SJ3WFJdgEtNFfFJ8Lk17bR_0e8f3ac25a440a496d7c2459451a457c72d99fe6")],
        ignored: &["CCIPAT_"],
        ..RULE
    },
    // Postman API keys: `PMAK-`, 24 and 34 hexadecimal digits (Postman docs, "API authentication").
    Rule {
        id: "postman-key",
        keywords: &["PMAK-"],
        form: token("PMAK-[a-fA-F0-9]{24}-[a-fA-F0-9]{34}"),
        found: &[concat!("PM", "AK-33174f04638467d36b4f2635-f724ad71691967305c663373175ee31b40")],
        ignored: &["PMAK-"],
        ..RULE
    },
    // ReadMe API keys: `rdme_` and 70 letters and digits (ReadMe docs, "API keys").
    Rule {
        id: "readme-key",
        keywords: &["rdme_"],
        form: token("rdme_[A-Za-z0-9]{70}"),
        found: &[concat!("rd", "me_omd88e4v6ol36tfa9yzr20lpex19co055gwrwgr0l7k0tbza4zrftq8te22h243ydxk4s6")],
        ignored: &["rdme_short"],
        ..RULE
    },
    // Linear API keys and OAuth tokens (Linear developers, "Authentication").
    Rule {
        id: "linear-key",
        keywords: &["lin_api_", "lin_oauth_"],
        form: token("lin_(?:api|oauth)_[A-Za-z0-9]{40,}"),
        found: &[concat!("li", "n_api_wBCrUVNZCyLt0TKNnk35ZHIgmu3RbmibDdLXHGUV")],
        ignored: &["lin_api_"],
        ..RULE
    },
    // Figma personal access and OAuth tokens (Figma developers, "Access tokens").
    Rule {
        id: "figma-token",
        keywords: &["figd_", "figo_", "figu_", "figoh_", "figor_"],
        form: token("fig(?:d|o|u|oh|or)_[A-Za-z0-9_-]{36,}"),
        found: &[concat!("fi", "gd_asGoEMd5zD2uRJBtY57r3PRluS_cb5I4jgIbsgx6")],
        ignored: &["figd_short"],
        ..RULE
    },
    // Notion integration tokens: `ntn_` or `secret_` (Notion developers, "Authorization").
    Rule {
        id: "notion-token",
        keywords: &["ntn_", "secret_"],
        form: token("(?:ntn_[0-9]{11}[A-Za-z0-9]{32,35}|secret_[A-Za-z0-9]{43})"),
        check: Some(is_mixed),
        found: &[
            concat!("nt", "n_182293796111JZwfhMUCR5Y4mkfuxGpQ481nLqOvoIMH3P"),
            concat!("sec", "ret_mClFkZOIzZUvoJi84BVjYNYqv5CwpORZBoYuJl9Qs6r"),
        ],
        ignored: &["ntn_short", "secret_key_base", "ntn_376559322565425550948022594073674480384997414565080479759306"],
        ..RULE
    },
    // Airtable personal access tokens: `pat`, 14 characters, a dot, 64 hexadecimal digits (Airtable developers,
    // "Personal access tokens").
    Rule {
        id: "airtable-token",
        keywords: &["pat"],
        form: token(r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
        found: &[concat!("pa", "tpYN70yenpM1HAy.f57b76f2c34ad5cfec16afd8950b41d4d2a7a2f16f1fd903a3863e06ef7f2ab4")],
        ignored: &["pattern.compile", "path"],
        ..RULE
    },
    // Contentful personal tokens: `CFPAT-` and 43 characters (Contentful docs, "Personal access tokens").
    Rule {
        id: "contentful-token",
        keywords: &["CFPAT-"],
        form: token("CFPAT-[A-Za-z0-9_-]{43}"),
        found: &[concat!("CF", "PAT-sHlI2iSB8DOw2do8VcT2HyTuLy9gcfSlKvg6aFWuVOn")],
        ignored: &["CFPAT-"],
        ..RULE
    },
    // Frame.io tokens: `fio-u-` and 64 characters (Frame.io developers, "Authentication").
    Rule {
        id: "frameio-token",
        keywords: &["fio-u-"],
        form: token("fio-u-[A-Za-z0-9_=-]{64}"),
        found: &[concat!("fi", "o-u-w67bZkue16PpaRunkNjKSlyGbH0HLQYhf8pPgmrmpDVmqsLQ5W05W_djGxOCC8WD")],
        ignored: &["fio-u-short"],
        ..RULE
    },
];
