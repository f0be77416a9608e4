//! Renders `proto-spec/registries.md`.

use std::fmt::Write as _;

use super::load::Registry;

/// The page of tables.
pub(crate) fn render(registry: &Registry) -> String {
    let mut out = String::from(
        "<!-- Generated from schemas/registry/*.toml by tests/registry: do not edit. -->\n\
         # 18. Registries\n\n\
         Numbers are never reused and never change their meaning (`schemas/registry/lock.txt` keeps all that were given\n\
         out). Rust's side of these tables is `src/wire/registry.rs`, made from the same files.\n\n\
         ## 18.1 Frame types\n\n\
         | number | name | stream | sender | fragments | payload | purpose |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for f in &registry.frames {
        let fragments = if f.fragments { "yes" } else { "no" };
        row(&mut out, &[&hex(f.number), &f.name, &f.stream, &f.sender, fragments, &f.payload, &f.purpose]);
    }
    out.push_str(
        "\nEvery other number is unassigned. 0x01 and 0x02 are bodies of the handshake, not frames, and stay unassigned here.\n\n\
         ## 18.2 Error codes\n\n\
         Scope `call`: the code ends one call or subscription (RPC_ERROR). `connection`: it ends the connection (CLOSE, or\n\
         the clear refusal before keys exist). `both`: either.\n\n\
         | number | name | scope | retryable | meaning |\n\
         |---|---|---|---|---|\n",
    );
    for c in &registry.codes {
        let retryable = if c.retryable { "yes" } else { "no" };
        row(&mut out, &[&c.number.to_string(), &c.name, &c.scope, retryable, &c.meaning]);
    }
    out.push_str(
        "\nEvery other number is unassigned. A receiver treats an unassigned code as INTERNAL_ERROR that is not\n\
         retryable, and shows the number.\n\n\
         ## 18.3 Suites\n\n\
         | number | name | Noise protocol |\n\
         |---|---|---|\n",
    );
    for s in &registry.suites {
        let protocol = format!("`Noise_{}_25519_{}_SHA256`", s.pattern, s.cipher);
        row(&mut out, &[&hex(s.number), &s.name(), &protocol]);
    }
    out.push_str(
        "\nOdd numbers are ChaChaPoly, even ones AESGCM. Numbers from 0x80 are reserved for post-quantum hybrids.\n",
    );
    out
}

fn hex(number: u16) -> String {
    format!("0x{number:02X}")
}

fn row(out: &mut String, cells: &[&str]) {
    writeln!(out, "| {} |", cells.join(" | ")).expect("writing to a String does not fail");
}
