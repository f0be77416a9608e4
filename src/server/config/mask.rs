//! The password in a database's URL, hidden.

/// What stands where a secret was.
const MASK: &str = "***";

/// Hides the password of `postgres://user:password@host/db?password=..` and of `host=.. password=..`. Where the text is
/// ambiguous it hides too much rather than too little.
pub fn mask_password(url: &str) -> String {
    mask_parameter(&mask_userinfo(url))
}

fn mask_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last @: a password may hold one, and a slash, although it should be escaped.
    let Some((userinfo, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    match userinfo.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}"),
        None => url.to_owned(),
    }
}

fn mask_parameter(text: &str) -> String {
    const NAME: &str = "password";
    let is_url = text.contains("://");
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(NAME) {
        let (before, from_name) = rest.split_at(at);
        let (name, after) = from_name.split_at(NAME.len());
        masked.push_str(before);
        masked.push_str(name);
        rest = after;
        let value = after.trim_start();
        if let Some(value) = value.strip_prefix('=') {
            masked.push('=');
            masked.push_str(MASK);
            rest = after_value(value.trim_start(), is_url);
        }
    }
    masked + rest
}

/// What follows a value: quoted with backslashes as escapes, or up to a space (`&` in a URL).
fn after_value(value: &str, is_url: bool) -> &str {
    let end = if let (Some(quoted), false) = (value.strip_prefix('\''), is_url) {
        let mut escaped = false;
        let closing = quoted.find(|c| {
            let closes = c == '\'' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        closing.map(|at| at + 2)
    } else {
        value.find(|c: char| if is_url { c == '&' } else { c.is_whitespace() })
    };
    end.and_then(|end| value.get(end..)).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_password_survives() {
        for (url, expected) in [
            ("postgres://ann:s3cret@db:5432/app", "postgres://ann:***@db:5432/app"),
            ("postgres://ann:s3/c@ret@db/app", "postgres://ann:***@db/app"),
            (
                "postgres://ann@db/app?sslmode=require&password=s3cret&x=1",
                "postgres://ann@db/app?sslmode=require&password=***&x=1",
            ),
            ("host=db user=ann password=s3cret dbname=app", "host=db user=ann password=*** dbname=app"),
            ("host=db PASSWORD = 's3 \\' cret' dbname=app", "host=db PASSWORD=*** dbname=app"),
            ("host=db password='s3cret", "host=db password=***"),
            ("postgres://db/app", "postgres://db/app"),
            ("host=/run/postgresql", "host=/run/postgresql"),
        ] {
            assert_eq!(mask_password(url), expected);
            assert!(!mask_password(url).contains("s3"));
        }
    }
}
