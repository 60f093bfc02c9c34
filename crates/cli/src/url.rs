//! Percent-encoding of query values.

/// Appends `key=value` to a path, with `?` or `&` as needed.
pub(crate) fn add(path: &mut String, key: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(key);
    path.push('=');
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_cannot_end_the_query() {
        let mut path = "/v1/x".to_owned();
        super::add(&mut path, "path", "/a b&c=ü");
        super::add(&mut path, "side", "Upgrade");
        assert_eq!(path, "/v1/x?path=/a%20b%26c%3D%C3%BC&side=Upgrade");
    }
}
