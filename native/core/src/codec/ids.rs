//! UUID texts. Ids become keys and paths, so nothing but 32 hex digits ever gets through.

use super::error::{wire_error, Result};

const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Reads the hyphenated, the plain, the braced and the `urn:uuid:` form in either case; gives the hyphenated
/// lower-case form.
pub fn parse_uuid(text: &str) -> Result<String> {
    normalize(text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        wire_error!("`{shown}` is no uuid")
    })
}

fn normalize(text: &str) -> Option<String> {
    if text.len() == 32 {
        return hyphenated(GROUPS.iter().scan(0, |start, length| {
            *start += length;
            Some(text.get(*start - length..*start))
        }));
    }
    let inner = match text.strip_prefix("urn:uuid:") {
        Some(inner) => inner,
        None => text
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
            .unwrap_or(text),
    };
    if inner.len() != 36 {
        return None;
    }
    hyphenated(inner.split('-').map(Some))
}

fn hyphenated<'a>(groups: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let mut id = String::with_capacity(36);
    let mut count = 0;
    for group in groups {
        let group = group?;
        if count == GROUPS.len() || group.len() != GROUPS[count] || !group.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return None;
        }
        if count > 0 {
            id.push('-');
        }
        id.push_str(&group.to_ascii_lowercase());
        count += 1;
    }
    (count == GROUPS.len()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::parse_uuid;

    #[test]
    fn every_form() {
        let id = "5a0c1e7e-0000-4000-8000-00000000beef";
        for text in [
            id,
            "5A0C1E7E-0000-4000-8000-00000000BEEF",
            "5a0c1e7e00004000800000000000beef",
            "{5a0c1e7e-0000-4000-8000-00000000beef}",
            "urn:uuid:5a0c1e7e-0000-4000-8000-00000000beef",
        ] {
            assert_eq!(parse_uuid(text).as_deref(), Ok(id));
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "../../../../../../../../../../etc/pw",
            "5a0c1e7e-0000-4000-8000-00000000beeg",
            "5a0c1e7e-0000-4000-80000-0000000beef",
            "5a0c1e7e00004000800000000000bee",
            "5a0c1e7e-0000-4000-8000-0000-000beef",
            "{5a0c1e7e-0000-4000-8000-00000000beef",
            "éééééééééééééééé",
        ] {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }
}
