//! What one statement may cost before and after it is parsed. Each bound holds by itself: none relies on another one.

/// Bytes of the text. Long lists belong in a parameter; a person's statement is below a tenth of this.
pub const TEXT_LEN_MAX: usize = 16 * 1024;

/// Tokens of the text, blanks and comments not counted: the parser's tree is dropped by recursion, and a chain of
/// operators is as deep as it has tokens.
pub const TOKENS_MAX: usize = 2_000;

/// Bytes of the stack on which a statement is parsed: room for [`TOKENS_MAX`] steps down, 16 KiB each in a build without
/// optimisation. Only what is used becomes memory.
pub const STACK_LEN: usize = 64 * 1024 * 1024;

/// Open parentheses and brackets, before anything is parsed.
pub const NESTING_MAX: usize = 48;

/// Depth of expressions and queries, each inside the other. The parser has the same bound for itself.
pub const DEPTH_MAX: usize = 48;

/// Nodes of the tree.
pub const NODES_MAX: usize = 2_000;

/// Parameters of the caller.
pub const PARAMS_MAX: usize = 64;

/// Bytes of the parameters together: they are kept, sent and compared as a whole.
pub const PARAMS_LEN_MAX: usize = 256 * 1024;

/// How often a statement may read its table: twice is enough to compare rows with each other, and each further time
/// multiplies the work by the number of rows.
pub const OWN_TABLES_MAX: usize = 2;

/// Members of all FROM lists together, those of parts that are used twice counted twice.
pub const RELATIONS_MAX: usize = 8;

/// Columns of a result.
pub const COLUMNS_MAX: usize = 100;

/// The longest document and the longest value inside of it, in bytes of text: what a table takes.
pub const DOCUMENT_LEN: u64 = 1024 * 1024;

/// The longest id that counts for a statement's cost; an index takes no longer ones.
pub const ID_LEN: u64 = 4 * 1024;

/// The longest text form of a value that is no text or JSON.
pub const SMALL_LEN: u64 = 4 * 1024;

/// How long a single value may get, in bytes: some copies of a document, not thousands.
pub const VALUE_LEN_MAX: u64 = 32 * 1024 * 1024;

/// How long a value may get that is gathered from all rows into one: a document in an object, not many copies of it.
pub const COLLECTED_LEN_MAX: u64 = 8 * 1024 * 1024;

/// How many bytes all expressions of a statement may make for one row: Postgres frees them when the row is done.
pub const ROW_WORK_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a pattern of LIKE, of a format, of a time zone: they are matched step by step.
pub const PATTERN_LEN_MAX: usize = 256;

/// The most rows before the current one in the frame of a window: an aggregate may walk through them for each row.
pub const FRAME_ROWS_MAX: u64 = 1_000;

/// The longest that `lpad` and `rpad` make.
pub const PAD_LEN_MAX: i64 = 1_024;

/// Digits of a number that is written out, and of its exponent: Postgres computes with as many digits as it is given.
pub const NUMBER_LEN_MAX: usize = 64;

/// The largest exponent of a number that is written out.
pub const EXPONENT_MAX: u32 = 308;

/// Rows of a result. A longer one is what a streamed query is for.
pub const ROWS_MAX: u64 = 10_000;

/// Bytes of all rows of a result as JSON: a message (1 MiB) less room for its envelope.
pub const RESULT_LEN_MAX: u64 = 1024 * 1024 - 32 * 1024;
