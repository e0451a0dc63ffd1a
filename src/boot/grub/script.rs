//! The GRUB script language (GRUB manual 2.12 §6.9): words, quotes, variables, and the compound commands.
//!
//! Contract: [`parse`] takes any text and answers with statements; what makes no sense is passed over, nesting is at most
//! [`MAX_NESTING`] deep, and the work is proportional to the text.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

/// Deeper nesting than this is flattened.
pub(super) const MAX_NESTING: u32 = 16;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it stands; `true`: quoted, so it makes a word even when empty.
    Text(String, bool),
    /// A variable; `true`: inside double quotes, so its value is not split.
    Variable(String, bool),
}

/// A word before expansion.
pub(super) type Word = Vec<Part>;

/// Some statements that several owners share: a menu entry's or function's body.
pub(super) type Body = Arc<Vec<Statement>>;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// A command with its arguments and, for `menuentry` and `submenu`, the block behind it.
    Simple(Vec<Word>, Option<Body>),
    /// Conditions with what each leads to, and the `else` part.
    If(Vec<(Body, Body)>, Body),
    /// `while` (or `until`, if the flag is set).
    While(Body, Body, bool),
    /// `for NAME in WORDS`.
    For(String, Vec<Word>, Body),
    /// `function NAME { … }`.
    Function(String, Body),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    End,
    Open,
    Close,
}

/// Parse a whole file.
pub(super) fn parse(text: &str) -> Body {
    let tokens = Lexer { chars: text.chars().peekable() }.tokens();
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), nesting: 0 };
    let mut all = Vec::new();
    while parser.tokens.peek().is_some() {
        all.extend(parser.block(&[]));
        // A stray terminator ends the block early: step over it.
        parser.tokens.next();
    }
    Arc::new(all)
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Lexer<'_> {
    fn tokens(mut self) -> Vec<Token> {
        let mut out = Vec::new();
        while let Some(&c) = self.chars.peek() {
            match c {
                ' ' | '\t' | '\r' => {
                    self.chars.next();
                }
                '\n' | ';' | '&' | '|' => {
                    self.chars.next();
                    out.push(Token::End);
                }
                '#' => while self.chars.next_if(|c| *c != '\n').is_some() {},
                '{' => {
                    self.chars.next();
                    out.push(Token::Open);
                }
                '}' => {
                    self.chars.next();
                    out.push(Token::Close);
                }
                _ => {
                    let word = self.word();
                    if !word.is_empty() {
                        out.push(Token::Word(word));
                    }
                }
            }
        }
        out
    }

    fn word(&mut self) -> Word {
        let mut parts = Vec::new();
        let mut text = String::new();
        let flush = |text: &mut String, parts: &mut Word, quoted| {
            if quoted || !text.is_empty() {
                parts.push(Part::Text(std::mem::take(text), quoted));
            }
        };
        while let Some(&c) = self.chars.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' => break,
                '\\' => {
                    self.chars.next();
                    match self.chars.next() {
                        Some('\n') | None => {}
                        Some(c) => text.push(c),
                    }
                }
                '\'' => {
                    self.chars.next();
                    flush(&mut text, &mut parts, false);
                    while let Some(c) = self.chars.next().filter(|c| *c != '\'') {
                        text.push(c);
                    }
                    flush(&mut text, &mut parts, true);
                }
                '"' => {
                    self.chars.next();
                    flush(&mut text, &mut parts, false);
                    while let Some(c) = self.chars.next().filter(|c| *c != '"') {
                        match c {
                            '\\' => match self.chars.next() {
                                Some(c @ ('"' | '\\' | '$')) => text.push(c),
                                Some('\n') | None => {}
                                Some(c) => text.extend(['\\', c]),
                            },
                            '$' => {
                                flush(&mut text, &mut parts, false);
                                self.variable(true, &mut text, &mut parts);
                            }
                            c => text.push(c),
                        }
                    }
                    flush(&mut text, &mut parts, true);
                }
                '$' => {
                    self.chars.next();
                    flush(&mut text, &mut parts, false);
                    self.variable(false, &mut text, &mut parts);
                }
                c => {
                    self.chars.next();
                    text.push(c);
                }
            }
        }
        flush(&mut text, &mut parts, false);
        parts
    }

    /// What follows a `$`.
    fn variable(&mut self, quoted: bool, text: &mut String, parts: &mut Word) {
        let mut name = String::new();
        match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                while let Some(c) = self.chars.next().filter(|c| *c != '}') {
                    name.push(c);
                }
            }
            Some(c @ ('?' | '@' | '#' | '*')) => {
                name.push(*c);
                self.chars.next();
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        if name.is_empty() {
            text.push('$');
        } else {
            parts.push(Part::Variable(name, quoted));
        }
    }
}

/// The text of a word that is one unquoted piece: only such a word can be a keyword.
fn bare(word: &Word) -> Option<&str> {
    match word.as_slice() {
        [Part::Text(text, false)] => Some(text),
        _ => None,
    }
}

struct Parser {
    tokens: Peekable<std::vec::IntoIter<Token>>,
    nesting: u32,
}

impl Parser {
    fn at_keyword(&mut self, keywords: &[&str]) -> bool {
        match self.tokens.peek() {
            Some(Token::Word(word)) => bare(word).is_some_and(|w| keywords.contains(&w)),
            _ => false,
        }
    }

    fn skip_ends(&mut self) {
        while self.tokens.next_if_eq(&Token::End).is_some() {}
    }

    /// Statements up to one of `stop` or a closing brace, neither of which is consumed.
    fn block(&mut self, stop: &[&str]) -> Vec<Statement> {
        let mut out = Vec::new();
        loop {
            self.skip_ends();
            if self.at_keyword(stop) {
                break;
            }
            match self.tokens.peek() {
                None | Some(Token::Close) => break,
                Some(Token::Open) => {
                    self.tokens.next();
                }
                Some(_) => out.extend(self.statement()),
            }
        }
        out
    }

    fn statement(&mut self) -> Option<Statement> {
        let keyword = match self.tokens.peek() {
            Some(Token::Word(word)) if self.nesting < MAX_NESTING => bare(word).map(str::to_string),
            _ => None,
        };
        self.nesting += 1;
        let statement = match keyword.as_deref() {
            Some("if") => Some(self.parse_if()),
            Some(word @ ("while" | "until")) => {
                self.tokens.next();
                let condition = self.block(&["do", "done"]);
                let body = self.parse_do();
                Some(Statement::While(Arc::new(condition), body, word == "until"))
            }
            Some("for") => self.parse_for(),
            Some("function") => self.parse_function(),
            _ => self.parse_simple(),
        };
        self.nesting -= 1;
        statement
    }

    fn parse_if(&mut self) -> Statement {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        while self.at_keyword(&["if", "elif"]) {
            self.tokens.next();
            let condition = self.block(&["then", "elif", "else", "fi"]);
            self.eat("then");
            let body = self.block(&["elif", "else", "fi"]);
            branches.push((Arc::new(condition), Arc::new(body)));
            if !self.at_keyword(&["elif"]) {
                break;
            }
        }
        if self.eat("else") {
            otherwise = self.block(&["fi"]);
        }
        self.eat("fi");
        Statement::If(branches, Arc::new(otherwise))
    }

    fn parse_do(&mut self) -> Body {
        self.eat("do");
        let body = self.block(&["done"]);
        self.eat("done");
        Arc::new(body)
    }

    fn parse_for(&mut self) -> Option<Statement> {
        self.tokens.next();
        let mut words = self.words();
        self.skip_ends();
        let body = self.parse_do();
        if words.len() < 2 || words.get(1).and_then(bare) != Some("in") {
            return None;
        }
        let values = words.split_off(2);
        Some(Statement::For(words.first().and_then(bare)?.to_string(), values, body))
    }

    fn parse_function(&mut self) -> Option<Statement> {
        self.tokens.next();
        let words = self.words();
        self.skip_ends();
        let body = self.braces()?;
        Some(Statement::Function(words.first().and_then(bare)?.to_string(), body))
    }

    fn parse_simple(&mut self) -> Option<Statement> {
        let words = self.words();
        // Only these take a block; `{` elsewhere is an error in GRUB, too.
        let takes_block = matches!(words.first().and_then(bare), Some("menuentry" | "submenu"));
        let block = if takes_block && self.nesting < MAX_NESTING { self.braces() } else { None };
        if words.is_empty() {
            // Not a word and not a block: step over it, or parsing would never end.
            self.tokens.next();
            return None;
        }
        Some(Statement::Simple(words, block))
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some(Token::Word(word)) = self.tokens.next_if(|t| matches!(t, Token::Word(_))) {
            words.push(word);
        }
        words
    }

    fn braces(&mut self) -> Option<Body> {
        self.tokens.next_if_eq(&Token::Open)?;
        let body = self.block(&[]);
        self.tokens.next_if_eq(&Token::Close);
        Some(Arc::new(body))
    }

    fn eat(&mut self, keyword: &str) -> bool {
        self.at_keyword(&[keyword]) && self.tokens.next().is_some()
    }
}
