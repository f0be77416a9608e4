//! The two forms of a connection string, taken apart: `postgres://..?key=value` and `key=value key='va lue'`.

/// A connection string in two parts: what `tokio_postgres` reads, and the parameters it does not know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    /// The string without the parameters that were taken out.
    pub(super) rest: String,
    /// What was taken out, in order, decoded.
    pub(super) taken: Vec<(String, String)>,
}

/// Takes the parameters out that `is_ours` names. `None`: the text is not a connection string.
pub(super) fn split(text: &str, is_ours: impl Fn(&str) -> bool) -> Option<Split> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        split_url(text, is_ours)
    } else {
        split_pairs(text, is_ours)
    }
}

fn split_url(text: &str, is_ours: impl Fn(&str) -> bool) -> Option<Split> {
    // A password may hold a question mark, a host may not.
    let host = text.find('@').unwrap_or(0);
    let query = text.get(host..)?.find('?').map(|at| host + at);
    let Some(query) = query else { return Some(Split { rest: text.to_owned(), taken: Vec::new() }) };
    let (base, parameters) = text.split_at(query);
    let mut split = Split { rest: base.to_owned(), taken: Vec::new() };
    let mut separator = '?';
    for parameter in parameters.get(1..)?.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=')?;
        if is_ours(key) {
            split.taken.push((key.to_owned(), percent_decoded(value)?));
        } else {
            split.rest.push(separator);
            split.rest.push_str(parameter);
            separator = '&';
        }
    }
    Some(split)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn split_pairs(text: &str, is_ours: impl Fn(&str) -> bool) -> Option<Split> {
    let mut split = Split::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
        let (value, after) = value(after.trim_start())?;
        if is_ours(key) {
            split.taken.push((key.to_owned(), value));
        } else {
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            split.rest.push_str(&format!("{key}='{escaped}' "));
        }
        rest = after.trim_start();
    }
    Some(split)
}

/// The value at the start of a text, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if is_quoted => return Some((value, text.get(at + 1..)?)),
            space if !is_quoted && space.is_whitespace() => return Some((value, text.get(at..)?)),
            other => value.push(other),
        }
    }
    (!is_quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(text: &str) -> Option<(String, Vec<(String, String)>)> {
        split(text, |key| key.starts_with("ssl")).map(|split| (split.rest, split.taken))
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn parameters_are_taken_out_of_a_url_and_the_rest_stays_as_it_was() {
        let text = "postgres://ann:p%40ss?word@db:5432/app?sslmode=require&application_name=x%20y&sslrootcert=%2Fca%20s.pem";
        let (rest, taken) = ours(text).unwrap();
        assert_eq!(rest, "postgres://ann:p%40ss?word@db:5432/app?application_name=x%20y");
        assert_eq!(taken, pairs(&[("sslmode", "require"), ("sslrootcert", "/ca s.pem")]));
        let plain = "postgresql://db/app";
        assert_eq!(ours(plain).unwrap(), (plain.to_owned(), Vec::new()));
        for bad in ["postgres://db?sslmode", "postgres://db?sslkey=%zz", "postgres://db?sslkey=%f"] {
            assert_eq!(ours(bad), None, "{bad}");
        }
    }

    #[test]
    fn parameters_are_taken_out_of_the_other_form() {
        let (rest, taken) =
            ours(r"host=db  sslmode = verify-ca password='a \' \\ b' sslkey='/x y' dbname=app").unwrap();
        assert_eq!(rest, r"host='db' password='a \' \\ b' dbname='app' ");
        assert_eq!(taken, pairs(&[("sslmode", "verify-ca"), ("sslkey", "/x y")]));
        let config: tokio_postgres::Config = rest.parse().unwrap();
        assert_eq!(config.get_password(), Some(&br"a ' \ b"[..]));
        for bad in ["host", "host='db", "=x", "a b=c"] {
            assert_eq!(ours(bad), None, "{bad}");
        }
    }
}
