//! The `raystream` program: see [`raystream::cli`].

use std::process::ExitCode;

/// A call allocates what it carries, and all calls of a record do so before the first of them is answered: more at a time than
/// the C library keeps at hand for a thread. This one has more at hand, and holds as little as that for an idle connection.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    raystream::cli::main()
}
