//! The commands of a GRUB configuration.

use super::commands::{self, place};
use super::run::{Flow, Interpreter, MAX_DEPTH, MAX_ENTRIES, MAX_VALUE, MenuEntry};
use super::script::{self, Body, Word};
use super::{Action, MAX_CONFIG, Place};
use crate::boot::bls;

impl Interpreter<'_> {
    pub(super) fn simple(&mut self, words: &[Word], block: Option<&Body>, depth: u32) -> Flow {
        let mut arguments = self.expand(words);
        if arguments.is_empty() {
            return Flow::Next;
        }
        let command = arguments.remove(0);
        self.status = true;
        match command.as_str() {
            "break" => return Flow::Break,
            "continue" => return Flow::Continue,
            "return" => {
                self.status = arguments.first().is_none_or(|a| a == "0");
                return Flow::Return;
            }
            "exit" | "halt" | "reboot" => return Flow::Stop,
            "boot" => {
                self.boot();
                return if self.booted.is_some() { Flow::Stop } else { Flow::Next };
            }
            "menuentry" | "submenu" => self.add_entry(command == "submenu", arguments, block),
            "configfile" | "normal" | "source" | "." => return self.nested(&command, &arguments, depth),
            "set" => arguments.iter().for_each(|a| self.assign(a)),
            "unset" => arguments.iter().for_each(|a| drop(self.variables.remove(a))),
            "test" | "[" => {
                if command == "[" && arguments.last().is_some_and(|a| a == "]") {
                    arguments.pop();
                }
                self.spend(10);
                let root = self.variable("root");
                let host = &mut *self.host;
                self.status = commands::test(&arguments, |path| commands::fact(host, path, &root));
            }
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => self.search(&command, &arguments),
            "load_env" => self.load_env(&arguments),
            "linux" | "linux16" | "linuxefi" => self.linux(arguments),
            "initrd" | "initrd16" | "initrdefi" => {
                let paths: Vec<String> = arguments.into_iter().filter(|a| !a.starts_with("--")).collect();
                self.initrd(&paths);
            }
            "blscfg" => self.blscfg(),
            "increment" | "decrement" => {
                let name = arguments.first().cloned().unwrap_or_default();
                let value: i64 = self.variable(&name).trim().parse().unwrap_or(0);
                let by = if command == "increment" { 1 } else { -1 };
                self.set(&name, &value.saturating_add(by).to_string());
            }
            "false" => self.status = false,
            "true" | ":" | "echo" | "insmod" | "export" | "save_env" | "terminal_output" | "terminal_input"
            | "serial" | "gfxpayload" | "loadfont" | "play" | "sleep" | "clear" | "background_color"
            | "background_image" | "recordfail_clear" | "rmmod" | "terminal" | "keymap" | "hiddenentry" => {}
            other => {
                if let Some(body) = self.functions.get(other).cloned() {
                    return self.function(&body, arguments, depth);
                }
                match other.split_once('=') {
                    Some((name, _)) if !name.is_empty() => self.assign(other),
                    _ => self.status = false,
                }
            }
        }
        Flow::Next
    }

    fn function(&mut self, body: &Body, arguments: Vec<String>, depth: u32) -> Flow {
        if depth >= MAX_DEPTH {
            self.status = false;
            return Flow::Next;
        }
        let caller = std::mem::replace(&mut self.arguments, arguments);
        let flow = self.block(body, depth + 1);
        self.arguments = caller;
        if flow == Flow::Return { Flow::Next } else { flow }
    }

    fn assign(&mut self, assignment: &str) {
        if let Some((name, value)) = assignment.split_once('=') {
            self.set(name, value);
        }
    }

    /// A menu entry's title, identifier and arguments; options as in GRUB manual §16.1.1.
    fn add_entry(&mut self, submenu: bool, arguments: Vec<String>, block: Option<&Body>) {
        let (mut title, mut id, mut rest) = (None, String::new(), Vec::new());
        let mut words = arguments.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--id" | "$menuentry_id_option" => id = words.next().unwrap_or_default(),
                "--class" | "--users" | "--hotkey" => drop(words.next()),
                "--unrestricted" => {}
                other => match other.strip_prefix("--id=") {
                    Some(given) => id = given.to_string(),
                    None if other.starts_with("--") => {}
                    None if title.is_none() => title = Some(word),
                    None => rest.push(word),
                },
            }
        }
        if let (Some(title), Some(body), true) = (title, block, self.menu.len() < MAX_ENTRIES) {
            rest.insert(0, title.clone());
            let id = if id.is_empty() { title.clone() } else { id };
            self.menu.push(MenuEntry { title, id, action: Action::Block(body.clone(), submenu, rest) });
        }
    }

    fn nested(&mut self, command: &str, arguments: &[String], depth: u32) -> Flow {
        let path = match arguments.iter().find(|a| !a.starts_with('-')) {
            Some(path) => path.clone(),
            None => format!("{}/grub.cfg", self.variable("prefix")),
        };
        let root = self.variable("root");
        let (device, file) = place(&path, &root);
        let text = if depth < MAX_DEPTH { self.host.read(device, file, MAX_CONFIG) } else { None };
        let Some(text) = text else {
            self.note(format!("{command} {path}: no such file"));
            self.status = false;
            return Flow::Next;
        };
        self.spend(text.len() / 64);
        let text = String::from_utf8_lossy(&text).into_owned();
        if matches!(command, "source" | ".") {
            return self.block(&script::parse(&text), depth + 1);
        }
        let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
        let directory = format!("({device}){directory}");
        let full = format!("({device}){file}");
        self.set("config_directory", &directory);
        self.set("config_file", &full);
        self.config(&text, depth + 1);
        if self.booted.is_some() { Flow::Stop } else { Flow::Next }
    }

    fn search(&mut self, command: &str, arguments: &[String]) {
        self.status = false;
        self.spend(50);
        if let Some(search) = commands::parse_search(command, arguments) {
            match self.host.search(search.by, search.what) {
                Some(device) => {
                    self.status = true;
                    self.set(search.variable, &device);
                }
                None => self.note(format!("search: nothing found for {}", search.what)),
            }
        }
    }

    fn load_env(&mut self, arguments: &[String]) {
        let given = |i: usize, a: &String| match a.as_str() {
            "-f" | "--file" => arguments.get(i + 1).cloned(),
            other => other.strip_prefix("--file=").map(str::to_string),
        };
        let named = arguments.iter().enumerate().find_map(|(i, a)| given(i, a));
        let path = named.clone().unwrap_or_else(|| format!("{}/grubenv", self.variable("prefix")));
        let root = self.variable("root");
        let (device, file) = place(&path, &root);
        let Some(bytes) = self.host.read(device, file, MAX_CONFIG) else {
            self.status = false;
            return;
        };
        let wanted: Vec<&String> =
            arguments.iter().filter(|a| !a.starts_with('-') && Some(*a) != named.as_ref()).collect();
        self.spend(300);
        for (name, value) in commands::grubenv(&bytes) {
            if wanted.is_empty() || wanted.contains(&&name) {
                self.set(&name, &value);
            }
        }
    }

    fn linux(&mut self, mut arguments: Vec<String>) {
        if arguments.is_empty() {
            return;
        }
        let path = arguments.remove(0);
        let cmdline = commands::command_line(&path, &arguments);
        self.initrds.clear();
        self.kernel = None;
        match self.file(&path, "kernel") {
            Some(place) => self.kernel = Some((place, cmdline)),
            None => self.failed = true,
        }
    }

    fn initrd(&mut self, paths: &[String]) {
        for path in paths {
            match self.file(path, "initrd") {
                Some(place) => self.initrds.push(place),
                None => self.failed = true,
            }
        }
    }

    fn file(&mut self, path: &str, what: &str) -> Option<Place> {
        let root = self.variable("root");
        let (device, file) = place(path, &root);
        if self.host.stat(device, file).is_none() {
            self.note(format!("{what} ({device}){file} does not exist"));
            self.status = false;
            return None;
        }
        Some(Place { device: device.to_string(), path: file.to_string() })
    }

    // --- Boot Loader Specification entries ---

    fn blscfg(&mut self) {
        let (given, root, boot) = (self.variable("blsdir"), self.variable("root"), self.variable("boot"));
        let device = if boot.is_empty() { root } else { boot };
        // Without `blsdir`, GRUB looks at the top of the boot file system; that is below /boot where it is not separate.
        let places = [given.as_str(), "/loader/entries", "/boot/loader/entries"];
        for directory in places.into_iter().filter(|d| !d.is_empty()) {
            let directory = directory.trim_end_matches('/');
            let mut entries = Vec::new();
            let names = self.host.list(&device, directory);
            for name in names.iter().filter(|n| n.ends_with(".conf")).take(MAX_ENTRIES) {
                if let Some(bytes) = self.host.read(&device, &format!("{directory}/{name}"), 64 << 10) {
                    entries.push(bls::parse(name, &bytes));
                }
            }
            entries.retain(|e| e.bootable && !e.linux.is_empty());
            if !entries.is_empty() {
                entries.sort_by(bls::by_file_name);
                self.spend(64 * names.len());
                for entry in entries {
                    if self.menu.len() >= MAX_ENTRIES {
                        break;
                    }
                    let (title, id) = (entry.title.clone(), entry.id.clone());
                    let action = Action::Bls(Box::new(entry), device.clone());
                    self.menu.push(MenuEntry { title, id, action });
                }
                return;
            }
        }
        self.note(format!("blscfg: no entries on ({device})"));
    }

    pub(super) fn boot_entry(&mut self, entry: &bls::Entry, device: &str) {
        let below_boot = |path: &str| format!("/boot/{}", path.trim_start_matches('/'));
        let (given, root) = (format!("({device})"), String::new());
        let expand = |this: &Self, text: &str| expand_options(text, |name| this.variable(name));
        let real = |this: &mut Self, path: &str| {
            let path = format!("/{}", path.trim_start_matches('/'));
            let missing = this.host.stat(device, &path).is_none();
            if missing && this.host.stat(device, &below_boot(&path)).is_some() { below_boot(&path) } else { path }
        };
        let options = match &entry.options {
            Some(options) => options.clone(),
            None if self.variables.contains_key("default_kernelopts") => "$default_kernelopts".into(),
            None => "$kernelopts".into(),
        };
        let kernel = real(self, &entry.linux);
        let mut arguments = vec![format!("{given}{kernel}{root}")];
        arguments.extend(expand(self, &options).split_whitespace().map(str::to_string));
        self.linux(arguments);
        let early = self.variable("early_initrd");
        let listed = entry.initrd.iter().map(|i| expand(self, i)).collect::<Vec<_>>().join(" ");
        let paths: Vec<String> = format!("{early} {listed}").split_whitespace().map(str::to_string).collect();
        let paths: Vec<String> = paths.iter().map(|p| format!("{given}{}", real(self, p))).collect();
        self.initrd(&paths);
        self.boot();
    }
}

/// Replace `$name` in an entry's options; quotes mean nothing there.
pub(in crate::boot) fn expand_options(text: &str, value: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let after = after.strip_prefix('{').unwrap_or(after);
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        out.push_str(&value(after.get(..end).unwrap_or_default()));
        let tail = after.get(end..).unwrap_or_default();
        rest = tail.strip_prefix('}').unwrap_or(tail);
        if out.len() > MAX_VALUE {
            break;
        }
    }
    out.push_str(rest);
    out
}
