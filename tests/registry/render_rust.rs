//! Renders `src/wire/registry.rs`. The text comes out as `cargo fmt` would leave it.

use std::fmt::Write as _;

use super::load::Registry;

/// The whole file.
pub(crate) fn render(registry: &Registry) -> String {
    let mut out = String::from(HEADER);
    frames(&mut out, registry);
    codes(&mut out, registry);
    suites(&mut out, registry);
    out
}

/// `max_width` of rustfmt.toml.
const WIDTH_MAX: usize = 110;

const HEADER: &str = r#"// Generated from schemas/registry/*.toml by tests/registry: do not edit.
// To write it anew: RAYSTREAM_UPDATE=1 cargo test --release --test registry

//! The numbers of the wire and their names: frame types, error codes, suites (proto-spec, section 18).
//!
//! Each is an open newtype: every number can be held and shown, the known ones have a name.

use std::fmt;
"#;

/// The part that all three newtypes share: the struct, its constants, `ALL`, `name`.
struct Newtype<'a> {
    docs: &'a str,
    name: &'a str,
    integer: &'a str,
    /// Constant, number as written in Rust, name on the page, documentation.
    entries: Vec<(String, String, String, String)>,
}

impl Newtype<'_> {
    fn render(&self, out: &mut String) {
        let (name, integer) = (self.name, self.integer);
        line(out, "");
        line(out, &format!("/// {}", self.docs));
        line(out, "#[derive(Clone, Copy, PartialEq, Eq, Hash)]");
        line(out, &format!("pub struct {name}(pub {integer});"));
        line(out, "");
        line(out, &format!("impl {name} {{"));
        for (constant, number, _, docs) in &self.entries {
            line(out, &format!("    /// {docs}"));
            line(out, &format!("    pub const {constant}: {name} = {name}({number});"));
        }
        line(out, "");
        line(out, "    /// Every known one, in the order of the registry.");
        line(out, &format!("    pub const ALL: &'static [{name}] = &["));
        for (constant, ..) in &self.entries {
            line(out, &format!("        {name}::{constant},"));
        }
        line(out, "    ];");
        line(out, "");
        line(out, "    /// The name, when the number is a known one.");
        line(out, "    pub const fn name(self) -> Option<&'static str> {");
        line(out, "        match self {");
        for (constant, _, shown, _) in &self.entries {
            line(out, &format!("            {name}::{constant} => Some({shown:?}),"));
        }
        line(out, "            _ => None,");
        line(out, "        }");
        line(out, "    }");
    }

    /// Closes the `impl` and adds the text forms.
    fn finish(&self, out: &mut String, width: usize) {
        let name = self.name;
        line(out, "}");
        let text = format!(
            r#"
/// The name, or the number in hexadecimal.
impl fmt::Display for {name} {{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
        match self.name() {{
            Some(name) => f.write_str(name),
            None => write!(f, "0x{{:0{width}X}}", self.0),
        }}
    }}
}}

impl fmt::Debug for {name} {{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
        fmt::Display::fmt(self, f)
    }}
}}
"#
        );
        out.push_str(&text);
    }
}

/// A private function that gives the bits set for a number, one line each.
fn bits(out: &mut String, name: &str, entries: &[(&str, Vec<&str>)]) {
    line(out, "");
    line(out, "    const fn facts(self) -> u8 {");
    line(out, "        match self {");
    for (constant, set) in entries {
        let set = if set.is_empty() { String::from("0") } else { set.join(" | ") };
        line(out, &format!("            {name}::{constant} => {set},"));
    }
    line(out, "            _ => 0,");
    line(out, "        }");
    line(out, "    }");
}

/// A public question about one bit.
fn question(out: &mut String, docs: &str, function: &str, bit: &str) {
    line(out, "");
    line(out, &format!("    /// {docs}"));
    line(out, &format!("    pub const fn {function}(self) -> bool {{"));
    line(out, &format!("        self.facts() & {bit} != 0"));
    line(out, "    }");
}

fn frames(out: &mut String, registry: &Registry) {
    let newtype = Newtype {
        docs: "The type of a frame: the first byte of its head.",
        name: "FrameType",
        integer: "u8",
        entries: registry
            .frames
            .iter()
            .map(|f| (f.name.clone(), format!("0x{:02X}", f.number), f.name.clone(), f.purpose.clone()))
            .collect(),
    };
    out.push_str(
        "\nconst MAY_FRAGMENT: u8 = 1;\nconst ON_CONNECTION: u8 = 2;\nconst FROM_CLIENT: u8 = 4;\n\
         const FROM_SERVER: u8 = 8;\n",
    );
    newtype.render(out);
    let facts: Vec<(&str, Vec<&str>)> = registry
        .frames
        .iter()
        .map(|f| {
            let mut set = Vec::new();
            set.extend(f.fragments.then_some("MAY_FRAGMENT"));
            set.extend((f.stream == "connection").then_some("ON_CONNECTION"));
            set.extend((f.sender != "server").then_some("FROM_CLIENT"));
            set.extend((f.sender != "client").then_some("FROM_SERVER"));
            (f.name.as_str(), set)
        })
        .collect();
    bits(out, "FrameType", &facts);
    question(out, "Whether the flag MORE is allowed.", "may_fragment", "MAY_FRAGMENT");
    question(
        out,
        "Whether the frame is about the connection: its stream is 0.",
        "on_connection",
        "ON_CONNECTION",
    );
    question(out, "Whether a client sends it.", "client_sends", "FROM_CLIENT");
    question(out, "Whether a server sends it.", "server_sends", "FROM_SERVER");
    newtype.finish(out, 2);
}

fn codes(out: &mut String, registry: &Registry) {
    let newtype = Newtype {
        docs: "Why a call, a subscription or a connection ended.",
        name: "ErrorCode",
        integer: "u16",
        entries: registry
            .codes
            .iter()
            .map(|c| (c.name.clone(), c.number.to_string(), c.name.clone(), c.meaning.clone()))
            .collect(),
    };
    out.push_str("\nconst RETRYABLE: u8 = 1;\nconst ENDS_CALL: u8 = 2;\nconst ENDS_CONNECTION: u8 = 4;\n");
    newtype.render(out);
    line(out, "");
    line(out, "    /// The code of a name as `name` gives it.");
    line(out, "    pub fn from_name(name: &str) -> Option<ErrorCode> {");
    line(out, "        Some(match name {");
    for code in &registry.codes {
        line(out, &format!("            {:?} => ErrorCode::{},", code.name, code.name));
    }
    line(out, "            _ => return None,");
    line(out, "        })");
    line(out, "    }");
    line(out, "");
    line(out, "    /// One sentence for people.");
    line(out, "    pub const fn meaning(self) -> &'static str {");
    line(out, "        match self {");
    for code in &registry.codes {
        let arm = format!("            ErrorCode::{} => {:?},", code.name, code.meaning);
        if arm.len() <= WIDTH_MAX {
            line(out, &arm);
        } else {
            line(out, &format!("            ErrorCode::{} => {{", code.name));
            line(out, &format!("                {:?}", code.meaning));
            line(out, "            }");
        }
    }
    line(out, "            _ => \"A code that this version does not know.\",");
    line(out, "        }");
    line(out, "    }");
    let facts: Vec<(&str, Vec<&str>)> = registry
        .codes
        .iter()
        .map(|c| {
            let mut set = Vec::new();
            set.extend(c.retryable.then_some("RETRYABLE"));
            set.extend((c.scope != "connection").then_some("ENDS_CALL"));
            set.extend((c.scope != "call").then_some("ENDS_CONNECTION"));
            (c.name.as_str(), set)
        })
        .collect();
    bits(out, "ErrorCode", &facts);
    question(out, "Whether the same request may be sent again as it is.", "is_retryable", "RETRYABLE");
    question(out, "Whether it may stand in an RPC_ERROR.", "ends_call", "ENDS_CALL");
    question(
        out,
        "Whether it may stand in a CLOSE or a clear refusal.",
        "ends_connection",
        "ENDS_CONNECTION",
    );
    newtype.finish(out, 4);
}

fn suites(out: &mut String, registry: &Registry) {
    let constant = |pattern: &str, cipher: &str| format!("{pattern}_{cipher}").to_ascii_uppercase();
    let newtype = Newtype {
        docs: "A handshake suite: the Noise pattern and the cipher; X25519 and SHA-256 in all of them.",
        name: "Suite",
        integer: "u8",
        entries: registry
            .suites
            .iter()
            .map(|s| {
                let docs = format!("`Noise_{}_25519_{}_SHA256`.", s.pattern, s.cipher);
                (constant(&s.pattern, &s.cipher), format!("0x{:02X}", s.number), s.name(), docs)
            })
            .collect(),
    };
    newtype.render(out);
    for (docs, function, part) in [
        ("The Noise pattern, such as `IKpsk2`.", "pattern_name", 0),
        ("The cipher in Noise's own spelling: `ChaChaPoly` or `AESGCM`.", "cipher_name", 1),
        ("The whole Noise protocol name.", "noise_name", 2),
    ] {
        line(out, "");
        line(out, &format!("    /// {docs}"));
        line(out, &format!("    pub const fn {function}(self) -> Option<&'static str> {{"));
        line(out, "        match self {");
        for s in &registry.suites {
            let shown = match part {
                0 => s.pattern.clone(),
                1 => s.cipher.clone(),
                _ => format!("Noise_{}_25519_{}_SHA256", s.pattern, s.cipher),
            };
            line(out, &format!("            Suite::{} => Some({shown:?}),", constant(&s.pattern, &s.cipher)));
        }
        line(out, "            _ => None,");
        line(out, "        }");
        line(out, "    }");
    }
    newtype.finish(out, 2);
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String does not fail");
}
