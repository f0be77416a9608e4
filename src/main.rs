//! The `raystream` program: see [`raystream::cli`].

use std::process::ExitCode;

/// Memory that is kept when it is freed, about: four of the largest messages.
const KEPT_MEMORY: usize = 4 << 20;

/// The C library of GNU gives freed memory back to the system above a threshold of 128 KiB, and asks for it again with the
/// next large message: a third of the time of such a message is page faults. The threshold follows the largest block that
/// was freed (mallopt(3), "dynamic mmap threshold"): this block, of which no page is ever touched.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_MEMORY)));
}

fn main() -> ExitCode {
    keep_freed_memory();
    raystream::cli::main()
}
