//! `min(a, b, c)` as `((a) min (b) min (c))`: exmex reads calls of two values only, and no call in the second.

/// The operators that are written as calls.
const CALLS: [&str; 2] = ["min", "max"];

/// Rewrites all calls. The error says what is wrong.
pub(super) fn infix(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        if CALLS.contains(&word) && after.trim_start().starts_with('(') {
            let (values, behind) = arguments(after.trim_start())?;
            if values.len() < 2 {
                return Err("min( ) and max( ) take two values or more");
            }
            let values = values.into_iter().map(infix).collect::<Result<Vec<_>, _>>()?;
            out.push_str("((");
            out.push_str(&values.join(&format!(") {word} (")));
            out.push_str("))");
            rest = behind;
        } else if len > 0 {
            out.push_str(word);
            rest = after;
        } else if first == ',' {
            return Err("a comma outside of min( ) and max( )");
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    Ok(out)
}

/// From an opening parenthesis: what stands between commas up to the closing one, and what follows.
fn arguments(text: &str) -> Result<(Vec<&str>, &str), &'static str> {
    let (mut depth, mut from, mut values) = (0, 1, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ',' if depth == 1 => {
                values.push(&text[from..at]);
                from = at + 1;
            }
            ')' => {
                depth -= 1;
                if depth == 0 {
                    values.push(&text[from..at]);
                    return Ok((values, &text[at + 1..]));
                }
            }
            _ => {}
        }
    }
    Err("a parenthesis is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_become_operators() {
        assert_eq!(infix("min(a, b)*2").unwrap(), "((a) min ( b))*2");
        assert_eq!(infix("max (1,min(b,(c)),d)").unwrap(), "((1) max (((b) min ((c)))) max (d))");
        assert_eq!(infix("minimum + vm_min").unwrap(), "minimum + vm_min");
        for text in ["min(a", "min(a)", "a, b", "min(a, b", "max(,(a)"] {
            assert!(infix(text).is_err(), "{text}");
        }
    }
}
