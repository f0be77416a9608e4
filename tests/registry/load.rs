//! Reads `schemas/registry/*.toml` and refuses what breaks a rule of the registries.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

/// One frame type.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) stream: String,
    pub(crate) sender: String,
    pub(crate) fragments: bool,
    pub(crate) payload: String,
    pub(crate) purpose: String,
}

/// One error code.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Code {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) scope: String,
    pub(crate) retryable: bool,
    pub(crate) meaning: String,
}

/// One handshake suite.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    pub(crate) number: u16,
    pub(crate) pattern: String,
    pub(crate) cipher: String,
}

impl Suite {
    /// The name that logs and documents use, such as `NK_ChaChaPoly`.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}", self.pattern, self.cipher)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrameFile {
    frame: Vec<Frame>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeFile {
    code: Vec<Code>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    suite: Vec<Suite>,
}

/// The three registries.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) frames: Vec<Frame>,
    pub(crate) codes: Vec<Code>,
    pub(crate) suites: Vec<Suite>,
}

impl Registry {
    /// Reads the files of a folder; panics with the rule that is broken.
    pub(crate) fn read(folder: &Path) -> Registry {
        let file = |name: &str| super::read(&folder.join(name));
        match Registry::parse(&file("frames.toml"), &file("error_codes.toml"), &file("suites.toml")) {
            Ok(registry) => registry,
            Err(refusal) => panic!("schemas/registry: {refusal}"),
        }
    }

    /// Reads the three files' text, or says which rule is broken.
    pub(crate) fn parse(frames: &str, codes: &str, suites: &str) -> Result<Registry, String> {
        let registry = Registry {
            frames: toml::from_str::<FrameFile>(frames).map_err(|error| error.to_string())?.frame,
            codes: toml::from_str::<CodeFile>(codes).map_err(|error| error.to_string())?.code,
            suites: toml::from_str::<SuiteFile>(suites).map_err(|error| error.to_string())?.suite,
        };
        registry.check()?;
        Ok(registry)
    }

    fn check(&self) -> Result<(), String> {
        unique(self.frames.iter().map(|frame| (frame.number, frame.name.clone())))?;
        unique(self.codes.iter().map(|code| (code.number, code.name.clone())))?;
        unique(self.suites.iter().map(|suite| (suite.number, suite.name())))?;
        for frame in &self.frames {
            constant_name(&frame.name)?;
            below_256(frame.number)?;
            one_of(&frame.name, "stream", &frame.stream, &["call", "connection"])?;
            one_of(&frame.name, "sender", &frame.sender, &["client", "server", "both"])?;
        }
        for code in &self.codes {
            constant_name(&code.name)?;
            one_of(&code.name, "scope", &code.scope, &["call", "connection", "both"])?;
            if code.number == 0 {
                return Err(format!("{} has the number zero, which means nothing", code.name));
            }
        }
        for suite in &self.suites {
            let name = suite.name();
            below_256(suite.number)?;
            one_of(&name, "cipher", &suite.cipher, &["ChaChaPoly", "AESGCM"])?;
            if suite.number >= 0x80 {
                return Err(format!("{name}: from 0x80 on, numbers are reserved for post-quantum hybrids"));
            }
            if (suite.number % 2 == 1) != (suite.cipher == "ChaChaPoly") {
                return Err(format!("{name}: odd numbers are ChaChaPoly, even ones AESGCM"));
            }
        }
        Ok(())
    }
}

fn unique(entries: impl Iterator<Item = (u16, String)>) -> Result<(), String> {
    let mut numbers = HashSet::new();
    let mut names = HashSet::new();
    for (number, name) in entries {
        if !names.insert(name.clone()) {
            return Err(format!("the name {name} twice"));
        }
        if !numbers.insert(number) {
            return Err(format!("the number {number:#04x} twice"));
        }
    }
    Ok(())
}

fn constant_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!("{name:?} is not in upper case letters, digits and underscores"));
    }
    Ok(())
}

fn below_256(number: u16) -> Result<(), String> {
    if number < 256 { Ok(()) } else { Err(format!("{number:#x} is not below 256")) }
}

fn one_of(name: &str, field: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(format!("{name}: {field} is {value:?}, not one of {allowed:?}"))
    }
}
