//! The interpreter's state: variables, menus, and how statements follow each other.

use std::collections::HashMap;

use super::script::{self, Body, Part, Statement, Word};
use super::{Action, GrubError, Host, Loaded, Place};

/// A value longer than this is cut, and an expansion beyond it as well.
pub(super) const MAX_VALUE: usize = 16 << 10;
const MAX_VARIABLES: usize = 4096;
pub(super) const MAX_ENTRIES: usize = 4096;
const MAX_NOTES: usize = 16;
/// `configfile`, `source`, submenus and functions within each other.
pub(super) const MAX_DEPTH: u32 = 16;

pub(super) struct MenuEntry {
    pub title: String,
    pub id: String,
    pub action: Action,
}

/// How a list of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    /// `break` or `continue`: leave the innermost loop's body.
    Break,
    Continue,
    Return,
    /// Something was booted, or all is over.
    Stop,
}

pub(super) struct Interpreter<'h> {
    pub(super) host: &'h mut dyn Host,
    pub(super) variables: HashMap<String, String>,
    pub(super) functions: HashMap<String, Body>,
    pub(super) arguments: Vec<String>,
    pub(super) menu: Vec<MenuEntry>,
    pub(super) titles: Vec<String>,
    pub(super) kernel: Option<(Place, String)>,
    pub(super) initrds: Vec<Place>,
    pub(super) booted: Option<Loaded>,
    pub(super) status: bool,
    pub(super) failed: bool,
    pub(super) notes: Vec<String>,
    pub(super) steps: u32,
}

impl<'h> Interpreter<'h> {
    pub(super) fn new(host: &'h mut dyn Host, variables: HashMap<String, String>, steps: u32) -> Self {
        Self {
            host,
            variables,
            functions: HashMap::new(),
            arguments: Vec::new(),
            menu: Vec::new(),
            titles: Vec::new(),
            kernel: None,
            initrds: Vec::new(),
            booted: None,
            status: true,
            failed: false,
            notes: Vec::new(),
            steps,
        }
    }

    pub(super) fn finish(self) -> Result<Loaded, GrubError> {
        match self.booted {
            Some(loaded) => Ok(loaded),
            None if self.steps == 0 => Err(GrubError::TooLong),
            None => Err(GrubError::NothingLoaded(self.notes)),
        }
    }

    /// Run a configuration with a menu of its own, then what its menu chooses.
    pub(super) fn config(&mut self, text: &str, depth: u32) {
        let outer = std::mem::take(&mut self.menu);
        self.block(&script::parse(text), depth);
        self.menu_or_boot(depth);
        self.menu = outer;
    }

    fn menu_or_boot(&mut self, depth: u32) {
        if self.booted.is_some() {
            return;
        }
        if self.menu.is_empty() {
            self.boot();
            return;
        }
        let default = self.variable("default");
        let default = if default == "saved" { self.variable("saved_entry") } else { default };
        if self.enter(&default, depth) {
            return;
        }
        let fallback = self.variable("fallback");
        for choice in fallback.split_whitespace().take(MAX_DEPTH as usize) {
            if self.enter(choice, depth) {
                return;
            }
        }
    }

    /// Run the menu entry that `choice` names; whether something was booted.
    fn enter(&mut self, choice: &str, depth: u32) -> bool {
        if depth >= MAX_DEPTH {
            return false;
        }
        let (own, rest) = split_choice(choice);
        let chosen = match own.trim().parse::<usize>() {
            Ok(index) => self.menu.get(index),
            Err(_) => self.menu.iter().find(|e| !own.is_empty() && (e.id == own || e.title == own)),
        };
        // What is not in the menu means its first entry, as in GRUB.
        let Some(entry) = chosen.or(self.menu.first()) else { return false };
        let (title, action) = (entry.title.clone(), entry.action.clone());
        (self.kernel, self.failed) = (None, false);
        self.initrds.clear();
        self.set("chosen", &title);
        self.titles.push(title);
        match action {
            Action::Block(body, submenu, arguments) => {
                let outer = submenu.then(|| std::mem::take(&mut self.menu));
                let caller = std::mem::replace(&mut self.arguments, arguments);
                if submenu {
                    self.set("default", rest);
                }
                self.block(&body, depth + 1);
                if submenu {
                    self.menu_or_boot(depth + 1);
                } else if self.booted.is_none() {
                    self.boot();
                }
                self.arguments = caller;
                if let Some(outer) = outer {
                    self.menu = outer;
                }
            }
            Action::Bls(entry, device) => self.boot_entry(&entry, &device),
        }
        self.titles.pop();
        self.booted.is_some()
    }

    pub(super) fn boot(&mut self) {
        if let (Some((kernel, cmdline)), false) = (self.kernel.clone(), self.failed) {
            let (title, initrds) = (self.titles.join(">"), self.initrds.clone());
            self.booted = Some(Loaded { title, kernel, initrds, cmdline });
        }
    }

    pub(super) fn note(&mut self, text: String) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub(super) fn variable(&self, name: &str) -> String {
        self.variables.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let end = (0..=MAX_VALUE.min(value.len())).rev().find(|n| value.is_char_boundary(*n)).unwrap_or(0);
        if self.variables.len() < MAX_VARIABLES || self.variables.contains_key(name) {
            self.variables.insert(name.to_string(), value.get(..end).unwrap_or_default().to_string());
        }
    }

    /// Use up steps; `false` when there are none left.
    pub(super) fn spend(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        self.steps > 0 && self.booted.is_none()
    }

    // --- statements ---

    pub(super) fn block(&mut self, statements: &[Statement], depth: u32) -> Flow {
        for statement in statements {
            if !self.spend(1) {
                return Flow::Stop;
            }
            let flow = match statement {
                Statement::Simple(words, block) => self.simple(words, block.as_ref(), depth),
                Statement::If(branches, otherwise) => self.conditional(branches, otherwise, depth),
                Statement::While(condition, body, until) => self.repeat(condition, body, *until, depth),
                Statement::For(name, words, body) => self.for_each(name, words, body, depth),
                Statement::Function(name, body) => {
                    if self.functions.len() < MAX_VARIABLES {
                        self.functions.insert(name.clone(), body.clone());
                    }
                    Flow::Next
                }
            };
            if flow != Flow::Next {
                return flow;
            }
        }
        Flow::Next
    }

    fn conditional(&mut self, branches: &[(Body, Body)], otherwise: &Body, depth: u32) -> Flow {
        for (condition, body) in branches {
            match self.block(condition, depth) {
                Flow::Next if self.status => return self.block(body, depth),
                Flow::Next => {}
                flow => return flow,
            }
        }
        self.block(otherwise, depth)
    }

    fn repeat(&mut self, condition: &Body, body: &Body, until: bool, depth: u32) -> Flow {
        while self.spend(1) {
            match self.block(condition, depth) {
                Flow::Next if self.status != until => {}
                Flow::Next => return Flow::Next,
                flow => return flow,
            }
            match self.block(body, depth) {
                Flow::Next | Flow::Continue => {}
                Flow::Break => return Flow::Next,
                flow => return flow,
            }
        }
        Flow::Stop
    }

    fn for_each(&mut self, name: &str, words: &[Word], body: &Body, depth: u32) -> Flow {
        for value in self.expand(words) {
            if !self.spend(1) {
                return Flow::Stop;
            }
            self.set(name, &value);
            match self.block(body, depth) {
                Flow::Next | Flow::Continue => {}
                Flow::Break => return Flow::Next,
                flow => return flow,
            }
        }
        Flow::Next
    }

    pub(super) fn expand(&mut self, words: &[Word]) -> Vec<String> {
        let mut out = Vec::new();
        let mut total = 0;
        for word in words {
            let (mut text, mut present) = (String::new(), false);
            for part in word {
                let (value, quoted) = match part {
                    Part::Text(text, quoted) => (text.clone(), *quoted || !text.is_empty()),
                    Part::Variable(name, quoted) => {
                        let value = self.special(name);
                        // Outside quotes, a value's spaces end words.
                        if !quoted && value.contains(char::is_whitespace) {
                            let mut pieces = value.split_whitespace().peekable();
                            if value.starts_with(char::is_whitespace) && present {
                                out.push(std::mem::take(&mut text));
                            }
                            while let Some(piece) = pieces.next() {
                                total += piece.len();
                                text.push_str(piece);
                                present = true;
                                if pieces.peek().is_some() {
                                    out.push(std::mem::take(&mut text));
                                }
                            }
                            continue;
                        }
                        (value, *quoted)
                    }
                };
                total += value.len() + 1;
                present |= quoted || !value.is_empty();
                text.push_str(&value);
                if total > 4 * MAX_VALUE {
                    break;
                }
            }
            if present {
                out.push(text);
            }
            if total > 4 * MAX_VALUE {
                break;
            }
        }
        self.spend(total / 64);
        out
    }

    fn special(&self, name: &str) -> String {
        match name {
            "?" => u8::from(!self.status).to_string(),
            "#" => self.arguments.len().to_string(),
            "@" | "*" => self.arguments.join(" "),
            _ => match name.parse::<usize>() {
                Ok(n) => n.checked_sub(1).and_then(|n| self.arguments.get(n)).cloned().unwrap_or_default(),
                Err(_) => self.variable(name),
            },
        }
    }
}

/// The part of a menu choice for this menu, and the rest for the submenu. In a title, `>` is written `>>`.
fn split_choice(choice: &str) -> (String, &str) {
    let mut own = String::new();
    let mut chars = choice.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '>' && chars.next_if(|(_, c)| *c == '>').is_none() {
            return (own, choice.get(at + 1..).unwrap_or_default());
        }
        own.push(c);
    }
    (own, "")
}
