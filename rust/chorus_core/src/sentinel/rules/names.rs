//! Names: whether one says that what it is given is secret, and whether a value is itself a name.

/// Words of names that hold `key` or `token` and are no secret: what is public, what a key is for, what is said about it.
const PLAIN: &[&str] = &[
    "accessibility",
    "accessible",
    "accessor",
    "algo",
    "alphabet",
    "bucket",
    "cache",
    "cachekey",
    "chars",
    "checksum",
    "count",
    "csrf",
    "digest",
    "event",
    "exchange",
    "file",
    "filename",
    "fingerprint",
    "foreign",
    "foreignkey",
    "hash",
    "hostname",
    "idempotency",
    "issuer",
    "keyboard",
    "keyfile",
    "keylength",
    "keyname",
    "keypath",
    "keysize",
    "keytype",
    "length",
    "name",
    "object",
    "partition",
    "partitionkey",
    "path",
    "primary",
    "primarykey",
    "pub",
    "pubkey",
    "public",
    "publickey",
    "restore",
    "schema",
    "sequence",
    "sha256",
    "size",
    "socket",
    "sort",
    "sortkey",
    "thumbprint",
    "tokentype",
    "type",
    "uri",
    "url",
    "username",
    "version",
    "websocket",
];

/// Words that programs and configuration make names of, where a value is named and not written.
const OF_PROGRAMS: &[&str] = &[
    "access",
    "account",
    "admin",
    "api",
    "app",
    "arg",
    "array",
    "attr",
    "auth",
    "authentication",
    "aws",
    "azure",
    "backup",
    "base",
    "basic",
    "bcrypt",
    "binary",
    "body",
    "bool",
    "buffer",
    "builder",
    "byte",
    "bytes",
    "cfg",
    "char",
    "check",
    "cipher",
    "class",
    "client",
    "cloud",
    "cluster",
    "code",
    "column",
    "conf",
    "config",
    "confirm",
    "connection",
    "const",
    "context",
    "cred",
    "credential",
    "crypt",
    "current",
    "data",
    "database",
    "db",
    "decode",
    "decoded",
    "default",
    "dev",
    "digest",
    "dummy",
    "email",
    "encode",
    "encoded",
    "encrypt",
    "encrypted",
    "entry",
    "env",
    "environ",
    "error",
    "fake",
    "false",
    "field",
    "file",
    "flag",
    "fn",
    "form",
    "from",
    "func",
    "function",
    "generate",
    "generated",
    "get",
    "getter",
    "global",
    "group",
    "hash",
    "hashed",
    "header",
    "hex",
    "host",
    "http",
    "id",
    "index",
    "info",
    "init",
    "input",
    "instance",
    "int",
    "item",
    "json",
    "key",
    "label",
    "len",
    "length",
    "line",
    "list",
    "local",
    "login",
    "long",
    "main",
    "map",
    "master",
    "max",
    "md",
    "message",
    "mock",
    "model",
    "mode",
    "my",
    "name",
    "new",
    "node",
    "none",
    "null",
    "number",
    "object",
    "old",
    "opt",
    "option",
    "optional",
    "options",
    "output",
    "page",
    "param",
    "parameter",
    "parse",
    "parsed",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "path",
    "placeholder",
    "plain",
    "prod",
    "production",
    "property",
    "props",
    "proxy",
    "pwd",
    "query",
    "raw",
    "read",
    "ref",
    "remote",
    "repeat",
    "req",
    "request",
    "required",
    "res",
    "reset",
    "response",
    "result",
    "root",
    "row",
    "salt",
    "sample",
    "scram",
    "secret",
    "secure",
    "self",
    "server",
    "service",
    "session",
    "set",
    "settings",
    "setup",
    "sha",
    "shadow",
    "size",
    "source",
    "ssh",
    "staging",
    "state",
    "static",
    "std",
    "step",
    "str",
    "string",
    "struct",
    "sub",
    "system",
    "table",
    "target",
    "temp",
    "template",
    "test",
    "tester",
    "testing",
    "text",
    "this",
    "tmp",
    "token",
    "true",
    "type",
    "uint",
    "unicode",
    "update",
    "uri",
    "url",
    "user",
    "username",
    "utf",
    "uuid",
    "val",
    "valid",
    "value",
    "var",
    "varchar",
    "vault",
    "vec",
    "verify",
    "version",
    "view",
    "widget",
    "wrong",
    "xml",
    "your",
];

/// Whether one of the words that a text is made of is one that programs make names of.
pub(super) fn is_of_programs(text: &[u8]) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let letters = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let mut run = &rest[..letters];
        while !run.is_empty() {
            let word = &run[..word_length(run)];
            let single = word.strip_suffix(b"s").or_else(|| word.strip_suffix(b"S")).unwrap_or(word);
            let is = |known: &&str| {
                word.eq_ignore_ascii_case(known.as_bytes()) || single.eq_ignore_ascii_case(known.as_bytes())
            };
            if OF_PROGRAMS.iter().any(is) {
                return true;
            }
            run = &run[word.len()..];
        }
        rest = &rest[letters..];
        rest = &rest[rest.iter().take_while(|b| !b.is_ascii_alphabetic()).count()..];
    }
    false
}

/// Whether a name says that what it is given is not secret, or is an id.
pub(super) fn is_plain(name: &[u8]) -> bool {
    let is_id = [b"id".as_slice(), b"ids"].iter().any(|end| ends_with(name, end));
    is_id || has_word(name, PLAIN) && !is_password(name)
}

/// Whether a name ends as a password's does.
pub(super) fn is_password(name: &[u8]) -> bool {
    [b"password".as_slice(), b"passwd", b"pwd", b"passphrase", b"_pass"].iter().any(|end| ends_with(name, end))
}

fn ends_with(name: &[u8], end: &[u8]) -> bool {
    name.len() >= end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end)
}

/// Whether one of these stands anywhere in the text, in any case.
pub(super) fn holds(text: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes())))
}

/// Whether a name has one of these words: `file_name`, `fileName`, `FILE-NAMES`, but not `filename`.
fn has_word(name: &[u8], words: &[&str]) -> bool {
    let mut rest = name;
    while !rest.is_empty() {
        let length = word_length(rest);
        let word = &rest[..length];
        let single = word.strip_suffix(b"s").or_else(|| word.strip_suffix(b"S")).unwrap_or(word);
        if words.iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes()) || single.eq_ignore_ascii_case(w.as_bytes())) {
            return true;
        }
        rest = &rest[length.max(1)..];
    }
    false
}

/// How long the word is that a name begins with; digits belong to the word before them.
fn word_length(name: &[u8]) -> usize {
    let is_upper = |i: usize| name.get(i).is_some_and(u8::is_ascii_uppercase);
    let is_lower = |i: usize| name.get(i).is_some_and(u8::is_ascii_lowercase);
    let mut end = 0;
    while name.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        end += 1;
        if is_upper(end) && (!is_upper(end - 1) || is_lower(end + 1)) {
            break;
        }
    }
    end
}

/// How many bytes are in words: three letters or more, all small but the first, or all capital, that could be said.
pub(super) fn wordy(bytes: &[u8]) -> usize {
    let (mut total, mut place) = (0, 0);
    while place < bytes.len() {
        let rest = &bytes[place..];
        let capitals = rest.iter().take_while(|b| b.is_ascii_uppercase()).count();
        let smalls = rest[capitals..].iter().take_while(|b| b.is_ascii_lowercase()).count();
        let length = match (capitals, smalls) {
            (0, 0) => 1,
            (0 | 1, _) | (_, 0) => capitals + smalls,
            // The last of several capitals belongs to the word after them.
            _ => capitals - 1,
        };
        if length >= 3 && is_sayable(&rest[..length]) {
            total += length;
        }
        place += length;
    }
    total
}

/// Whether letters could be a word: a vowel, and never four consonants in a row.
fn is_sayable(word: &[u8]) -> bool {
    let is_vowel = |b: &u8| matches!(b.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
    let is_broken = |part: &[u8]| !part.iter().any(|b| is_vowel(b) || b.eq_ignore_ascii_case(&b'h'));
    word.iter().any(is_vowel) && !word.windows(4).any(is_broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_word_by_word() {
        for plain in ["public_key", "publicKey", "TOKEN_URL", "keyName", "key-sizes", "HTTPSocketKey", "key_id"] {
            assert!(is_plain(plain.as_bytes()), "{plain}");
        }
        for secret in ["api_key", "account_key", "security_token", "hashicorpToken", "file_password", "eventbriteKey"] {
            assert!(!is_plain(secret.as_bytes()), "{secret}");
        }
    }

    #[test]
    fn words_are_told_from_what_is_random() {
        for words in ["X509KeyUsageFlags", "SHA256_DIGEST_LENGTH", "AuthorizationProvider", "query_statistics"] {
            assert!(wordy(words.as_bytes()) * 10 >= words.len() * 6, "{words}");
        }
        for random in ["x7Kq2LmV9nRt4WzY8bCd", "9f8e7d6c5b4a39281706", "k3xq9tzb4vwr2mpl7c"] {
            assert_eq!(wordy(random.as_bytes()), 0, "{random}");
        }
    }
}
