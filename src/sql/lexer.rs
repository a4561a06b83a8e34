//! Cuts SQL text into tokens, well enough to tell statements apart and to rewrite a few PostgreSQL-isms.
//!
//! Not a parser: SQLite judges the text. Comments and blanks yield no tokens. A string or comment without an end reaches to
//! the end of the text and is a token of its own kind, because SQLite would take some of them for complete.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    /// Keyword or unquoted name.
    Word,
    /// Name in double quotes, backticks or brackets.
    Quoted,
    /// String literal in single quotes, without a prefix.
    Text,
    /// String literal with the prefix E: backslash escapes count.
    EscapeText,
    /// String literal between dollar tags.
    DollarText,
    /// Number.
    Number,
    /// `$1`, `?`, `?1`, `:name`, `@name`.
    Parameter,
    /// One character, or one of the operators of several characters.
    Symbol,
    /// A quote or comment without an end, or a comment inside a comment: PostgreSQL's nest, SQLite's do not.
    Invalid,
}

/// One token and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Token {
    /// The token's text.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        sql.get(self.start..self.end).unwrap_or("")
    }

    /// True if it is this keyword.
    pub fn is(&self, sql: &str, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// True if it is this symbol.
    pub fn is_symbol(&self, sql: &str, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text(sql) == symbol
    }
}

/// All tokens of `sql`.
pub fn tokens(sql: &str) -> Vec<Token> {
    let mut found = Vec::with_capacity(sql.len() / 5 + 4);
    let mut at = 0;
    while let Some(token) = next_token(sql, &mut at) {
        found.push(token);
    }
    found
}

/// The token at `at` or after it; moves `at` behind it.
pub fn next_token(sql: &str, at: &mut usize) -> Option<Token> {
    let bytes = sql.as_bytes();
    while *at < bytes.len() {
        if let Some(next) = skip_blank(bytes, *at) {
            *at = next;
            continue;
        }
        let (kind, end) = token_at(bytes, *at);
        let token = Token { kind, start: *at, end };
        *at = end;
        return Some(token);
    }
    None
}

/// What is wrong with a token that is invalid.
pub fn what_is_invalid(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'/') if text.ends_with("*/") && comment_end(text.as_bytes(), 0).is_some() => {
            "a comment inside a comment is not supported"
        }
        Some(b'/') => "unterminated /* comment: the text has no */ for it",
        Some(b'"' | b'`' | b'[') => "unterminated quoted identifier: the text ends within it",
        Some(b'$') => "unterminated dollar-quoted string: the text ends within it",
        _ => "unterminated quoted string: the text ends within it",
    }
}

fn skip_blank(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest[0].is_ascii_whitespace() {
        return Some(at + 1);
    }
    if rest.starts_with(b"--") {
        return Some(rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1));
    }
    if rest.starts_with(b"/*") {
        return comment_end(bytes, at).filter(|(_, nests)| !nests).map(|(end, _)| end);
    }
    None
}

/// Where a comment ends, and whether it has another one in it. None: nowhere.
fn comment_end(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let (mut depth, mut deepest, mut at) = (0usize, 0usize, at);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        deepest = deepest.max(depth);
        at += 2;
        if depth == 0 {
            return Some((at, deepest > 1));
        }
    }
    None
}

fn token_at(bytes: &[u8], at: usize) -> (TokenKind, usize) {
    let byte = bytes[at];
    let next = bytes.get(at + 1).copied().unwrap_or(0);
    let ended = |kind: TokenKind, end: Option<usize>| {
        end.map_or((TokenKind::Invalid, bytes.len()), |end| (kind, end))
    };
    match byte {
        b'\'' => ended(TokenKind::Text, quoted_end(bytes, at, b'\'')),
        b'E' | b'e' if next == b'\'' => ended(TokenKind::EscapeText, escape_end(bytes, at + 1)),
        b'X' | b'x' if next == b'\'' => ended(TokenKind::Number, quoted_end(bytes, at + 1, b'\'')),
        b'"' | b'`' => ended(TokenKind::Quoted, quoted_end(bytes, at, byte)),
        b'[' => {
            let length = bytes[at..].iter().position(|byte| *byte == b']');
            ended(TokenKind::Quoted, length.map(|length| at + length + 1))
        }
        b'/' if next == b'*' => ended(TokenKind::Invalid, comment_end(bytes, at).map(|(end, _)| end)),
        b'$' if !next.is_ascii_digit() => match dollar_tag(bytes, at) {
            Some(tag) => ended(TokenKind::DollarText, dollar_end(bytes, at, tag)),
            None => (TokenKind::Parameter, word_end(bytes, at + 1)),
        },
        b'$' | b'?' => (TokenKind::Parameter, digits_end(bytes, at + 1)),
        b':' if next == b':' => (TokenKind::Symbol, at + 2),
        b':' | b'@' if is_word_start(next) => (TokenKind::Parameter, word_end(bytes, at + 1)),
        b'0'..=b'9' => (TokenKind::Number, number_end(bytes, at)),
        b'.' if next.is_ascii_digit() => (TokenKind::Number, number_end(bytes, at)),
        _ if is_word_start(byte) => (TokenKind::Word, word_end(bytes, at)),
        b'<' | b'>' | b'!' | b'=' | b'|' | b'-' => {
            let two = [byte, next];
            let double = [b"<=", b">=", b"<>", b"!=", b"==", b"||", b"<<", b">>", b"->"].contains(&&two);
            (TokenKind::Symbol, at + if double { 2 } else { 1 })
        }
        _ => (TokenKind::Symbol, at + 1),
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn word_end(bytes: &[u8], at: usize) -> usize {
    let part = |byte: &u8| is_word_start(*byte) || byte.is_ascii_digit() || *byte == b'$';
    at + bytes[at..].iter().take_while(|byte| part(byte)).count()
}

fn digits_end(bytes: &[u8], at: usize) -> usize {
    at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn number_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at;
    while let Some(byte) = bytes.get(end) {
        let sign = matches!(byte, b'+' | b'-') && end > at && matches!(bytes[end - 1], b'e' | b'E');
        if !(byte.is_ascii_alphanumeric() || *byte == b'.' || *byte == b'_' || sign) {
            break;
        }
        end += 1;
    }
    end
}

/// End of a quoted token that doubles its quote to hold it.
fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut end = at + 1;
    while end < bytes.len() {
        if bytes[end] == quote {
            if bytes.get(end + 1) != Some(&quote) {
                return Some(end + 1);
            }
            end += 1;
        }
        end += 1;
    }
    None
}

fn escape_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' => end += 1,
            b'\'' if bytes.get(end + 1) == Some(&b'\'') => end += 1,
            b'\'' => return Some(end + 1),
            _ => {}
        }
        end += 1;
    }
    None
}

/// The length of `$tag$` if that is what begins here.
fn dollar_tag(bytes: &[u8], at: usize) -> Option<usize> {
    let tag_end = at + 1 + bytes[at + 1..].iter().take_while(|byte| is_word_start(**byte)).count();
    (bytes.get(tag_end) == Some(&b'$')).then_some(tag_end + 1 - at)
}

fn dollar_end(bytes: &[u8], at: usize, tag: usize) -> Option<usize> {
    let body = at + tag;
    let end = bytes[body..].windows(tag).position(|window| window == &bytes[at..body])?;
    Some(body + end + tag)
}

/// Reads tokens one after another; the statements of ours are taken apart with it.
#[derive(Clone)]
pub struct Reader<'a> {
    /// The whole text.
    pub sql: &'a str,
    /// Its tokens.
    pub tokens: &'a [Token],
    /// The next one.
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first token.
    pub fn new(sql: &'a str, tokens: &'a [Token]) -> Reader<'a> {
        Reader { sql, tokens, at: 0 }
    }

    /// The next token, not taken.
    pub fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    /// Takes the next token.
    pub fn take(&mut self) -> Option<Token> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// Takes these keywords if all of them come next.
    pub fn accept(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(offset, word)| {
            self.tokens.get(self.at + offset).is_some_and(|token| token.is(self.sql, word))
        });
        if all {
            self.at += words.len();
        }
        all
    }

    /// Takes this symbol if it comes next.
    pub fn accept_symbol(&mut self, symbol: &str) -> bool {
        let there = self.peek().is_some_and(|token| token.is_symbol(self.sql, symbol));
        if there {
            self.at += 1;
        }
        there
    }

    /// True after the last token.
    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Takes a name, without its quotes.
    pub fn name(&mut self) -> Option<String> {
        let token = self.peek()?;
        if !matches!(token.kind, TokenKind::Word | TokenKind::Quoted) {
            return None;
        }
        self.at += 1;
        Some(unquoted(token.text(self.sql)))
    }

    /// Takes a string literal, without its quotes.
    pub fn string(&mut self) -> Option<String> {
        let token = self.peek().filter(|token| token.kind == TokenKind::Text)?;
        self.at += 1;
        Some(unquoted(token.text(self.sql)))
    }

    /// The text from the next token to the end.
    pub fn rest(&self) -> &'a str {
        let end = self.tokens.last().map_or(0, |token| token.end);
        self.peek().and_then(|token| self.sql.get(token.start..end)).unwrap_or("")
    }
}

/// A name or string literal without its quotes.
pub fn unquoted(text: &str) -> String {
    let quote = text.chars().next().unwrap_or(' ');
    let inner = || text.get(1..text.len().saturating_sub(1)).unwrap_or("");
    match quote {
        '\'' | '"' | '`' => inner().replace(&format!("{quote}{quote}"), &quote.to_string()),
        '[' => inner().to_string(),
        _ => text.to_string(),
    }
}

/// A name as SQLite takes it whatever it holds.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
