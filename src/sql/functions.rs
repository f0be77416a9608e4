//! The functions that a statement may call. What is not here does not exist: not what sleeps, reads files or settings, runs
//! text as SQL, takes locks, writes, or makes long values out of short ones.

use super::Type;
use Type::{Bool, Date, Float, Int, IntArray, Interval, Jsonb, Numeric, Text, TextArray, Timestamptz};

/// What a function takes at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arg {
    Is(Type),
    /// An integer, made an `integer`.
    Int4,
    /// A number, made a `double precision`: Postgres computes the same with hundreds of digits otherwise.
    AsFloat,
    Any,
    Number,
    Time,
    /// A text that is written out or a parameter, and short.
    Short,
    /// The same, as the name of a time zone.
    Zone,
    /// A whole number that is written out or a parameter, up to this one.
    Upto(i64),
}

/// What it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    Is(Type),
    /// The type of its first argument.
    Same,
    /// That of the first argument, or `double precision` for an integer.
    Rounded,
    /// That of the first argument, or `numeric` for an integer.
    Summed,
}

/// How long the value may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Len {
    /// So many times its arguments together.
    Times(u64),
    /// As its type.
    Small,
    /// A document's worth, by the rules for what collects rows.
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Aggregate,
    /// An aggregate that keeps all that it is given.
    Collects,
    Window,
    /// Gives rows.
    Rows,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) args: &'static [Arg],
    /// How many of the last ones may be left out.
    pub(super) optional: usize,
    /// What may follow, any number of times.
    pub(super) more: Option<Arg>,
    pub(super) gives: Gives,
    pub(super) len: Len,
}

/// The functions of a name, the first that fits counts.
pub(super) fn named(name: &str) -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().filter(move |function| function.name == name)
}

/// All names, for whoever checks what was written.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

/// Whether a function makes JSON of texts.
pub(super) fn escapes(name: &str) -> bool {
    named(name).any(|function| function.len == Len::Times(ESCAPED))
}

const fn scalar(name: &'static str, args: &'static [Arg], gives: Gives) -> Function {
    Function { name, kind: Kind::Scalar, args, optional: 0, more: None, gives, len: Len::Small }
}

const fn text(name: &'static str, args: &'static [Arg], times: u64) -> Function {
    Function { len: Len::Times(times), ..scalar(name, args, Gives::Is(Text)) }
}

const fn json(name: &'static str, args: &'static [Arg], times: u64) -> Function {
    Function { len: Len::Times(times), ..scalar(name, args, Gives::Is(Jsonb)) }
}

const fn optional(function: Function, optional: usize) -> Function {
    Function { optional, ..function }
}

const fn and_more(function: Function, more: Arg) -> Function {
    Function { more: Some(more), ..function }
}

const fn aggregate(name: &'static str, args: &'static [Arg], gives: Gives) -> Function {
    Function { kind: Kind::Aggregate, ..scalar(name, args, gives) }
}

const fn longest(name: &'static str, args: &'static [Arg]) -> Function {
    Function { len: Len::Times(1), ..aggregate(name, args, Gives::Same) }
}

const fn collects(name: &'static str, args: &'static [Arg], ty: Type) -> Function {
    Function { kind: Kind::Collects, len: Len::Document, ..scalar(name, args, Gives::Is(ty)) }
}

const fn window(name: &'static str, args: &'static [Arg], gives: Gives) -> Function {
    Function { kind: Kind::Window, len: Len::Times(1), ..scalar(name, args, gives) }
}

const fn rows(name: &'static str, ty: Type) -> Function {
    Function { kind: Kind::Rows, len: Len::Document, ..scalar(name, &[JSON], Gives::Is(ty)) }
}

const TEXT: Arg = Arg::Is(Text);
const JSON: Arg = Arg::Is(Jsonb);
const NUMBER: Gives = Gives::Is(Float);
const INT: Gives = Gives::Is(Int);

/// What JSON makes of a character at most: `\u0001`.
pub(super) const ESCAPED: u64 = 6;

const PAD: Arg = Arg::Upto(super::limits::PAD_LEN_MAX);
const STEPS: Arg = Arg::Upto(10_000);

const FUNCTIONS: &[Function] = &[
    // Text.
    text("lower", &[TEXT], 2),
    text("upper", &[TEXT], 3),
    text("initcap", &[TEXT], 3),
    text("reverse", &[TEXT], 1),
    text("left", &[TEXT, Arg::Int4], 1),
    text("right", &[TEXT, Arg::Int4], 1),
    optional(text("substr", &[TEXT, Arg::Int4, Arg::Int4], 1), 1),
    optional(text("substring", &[TEXT, Arg::Int4, Arg::Int4], 1), 1),
    optional(text("btrim", &[TEXT, Arg::Short], 1), 1),
    optional(text("ltrim", &[TEXT, Arg::Short], 1), 1),
    optional(text("rtrim", &[TEXT, Arg::Short], 1), 1),
    text("split_part", &[TEXT, Arg::Short, Arg::Int4], 1),
    // Shortened or filled to at most `PAD_LEN_MAX` characters of four bytes.
    optional(scalar("lpad", &[TEXT, PAD, Arg::Short], Gives::Is(Text)), 1),
    optional(scalar("rpad", &[TEXT, PAD, Arg::Short], Gives::Is(Text)), 1),
    and_more(text("concat", &[Arg::Any], 2), Arg::Any),
    and_more(text("concat_ws", &[Arg::Short, Arg::Any], 2), Arg::Any),
    scalar("length", &[TEXT], INT),
    scalar("char_length", &[TEXT], INT),
    scalar("character_length", &[TEXT], INT),
    scalar("octet_length", &[TEXT], INT),
    scalar("strpos", &[TEXT, Arg::Short], INT),
    scalar("starts_with", &[TEXT, TEXT], Gives::Is(Bool)),
    scalar("md5", &[TEXT], Gives::Is(Text)),
    // Numbers.
    scalar("abs", &[Arg::Number], Gives::Same),
    scalar("round", &[Arg::Number], Gives::Rounded),
    scalar("round", &[Arg::Is(Numeric), Arg::Int4], Gives::Is(Numeric)),
    scalar("trunc", &[Arg::Number], Gives::Rounded),
    scalar("trunc", &[Arg::Is(Numeric), Arg::Int4], Gives::Is(Numeric)),
    scalar("ceil", &[Arg::Number], Gives::Rounded),
    scalar("ceiling", &[Arg::Number], Gives::Rounded),
    scalar("floor", &[Arg::Number], Gives::Rounded),
    scalar("sign", &[Arg::Number], Gives::Rounded),
    scalar("sqrt", &[Arg::AsFloat], NUMBER),
    scalar("exp", &[Arg::AsFloat], NUMBER),
    scalar("ln", &[Arg::AsFloat], NUMBER),
    scalar("log", &[Arg::AsFloat], NUMBER),
    scalar("power", &[Arg::AsFloat, Arg::AsFloat], NUMBER),
    scalar("pow", &[Arg::AsFloat, Arg::AsFloat], NUMBER),
    // Times.
    scalar("now", &[], Gives::Is(Timestamptz)),
    scalar("date_trunc", &[Arg::Short, Arg::Is(Interval)], Gives::Is(Interval)),
    scalar("date_trunc", &[Arg::Short, Arg::Is(Timestamptz), Arg::Zone], Gives::Is(Timestamptz)),
    scalar("date_trunc", &[Arg::Short, Arg::Is(Type::Timestamp)], Gives::Is(Type::Timestamp)),
    scalar("date_trunc", &[Arg::Short, Arg::Is(Timestamptz)], Gives::Is(Timestamptz)),
    scalar("date_part", &[Arg::Short, Arg::Is(Interval)], NUMBER),
    scalar("date_part", &[Arg::Short, Arg::Time], NUMBER),
    scalar("extract", &[Arg::Short, Arg::Is(Interval)], Gives::Is(Numeric)),
    scalar("extract", &[Arg::Short, Arg::Time], Gives::Is(Numeric)),
    optional(scalar("age", &[Arg::Is(Type::Timestamp), Arg::Is(Type::Timestamp)], Gives::Is(Interval)), 1),
    optional(scalar("age", &[Arg::Is(Timestamptz), Arg::Is(Timestamptz)], Gives::Is(Interval)), 1),
    scalar("timezone", &[Arg::Zone, Arg::Is(Timestamptz)], Gives::Is(Type::Timestamp)),
    scalar("timezone", &[Arg::Zone, Arg::Is(Type::Timestamp)], Gives::Is(Timestamptz)),
    scalar("to_timestamp", &[Arg::AsFloat], Gives::Is(Timestamptz)),
    scalar("make_date", &[Arg::Int4, Arg::Int4, Arg::Int4], Gives::Is(Date)),
    scalar("to_char", &[Arg::Time, Arg::Short], Gives::Is(Text)),
    scalar("to_char", &[Arg::Is(Interval), Arg::Short], Gives::Is(Text)),
    scalar("to_char", &[Arg::Number, Arg::Short], Gives::Is(Text)),
    // JSON.
    scalar("jsonb_typeof", &[JSON], Gives::Is(Text)),
    scalar("jsonb_array_length", &[JSON], INT),
    and_more(json("jsonb_extract_path", &[JSON, TEXT], 1), TEXT),
    and_more(text("jsonb_extract_path_text", &[JSON, TEXT], 1), TEXT),
    and_more(json("jsonb_build_object", &[TEXT, Arg::Any], ESCAPED), Arg::Any),
    and_more(json("jsonb_build_array", &[Arg::Any], ESCAPED), Arg::Any),
    json("to_jsonb", &[Arg::Any], ESCAPED),
    json("jsonb_strip_nulls", &[JSON], 1),
    rows("jsonb_array_elements", Jsonb),
    rows("jsonb_array_elements_text", Text),
    rows("jsonb_object_keys", Text),
    rows("jsonb_each", Jsonb),
    rows("jsonb_each_text", Text),
    // Over many rows.
    aggregate("count", &[Arg::Any], INT),
    aggregate("sum", &[Arg::Is(Interval)], Gives::Is(Interval)),
    aggregate("sum", &[Arg::Number], Gives::Summed),
    aggregate("avg", &[Arg::Is(Interval)], Gives::Is(Interval)),
    aggregate("avg", &[Arg::Number], Gives::Summed),
    longest("min", &[Arg::Number]),
    longest("min", &[Arg::Time]),
    longest("min", &[Arg::Is(Interval)]),
    longest("min", &[TEXT]),
    longest("max", &[Arg::Number]),
    longest("max", &[Arg::Time]),
    longest("max", &[Arg::Is(Interval)]),
    longest("max", &[TEXT]),
    aggregate("bool_and", &[Arg::Is(Bool)], Gives::Is(Bool)),
    aggregate("bool_or", &[Arg::Is(Bool)], Gives::Is(Bool)),
    aggregate("every", &[Arg::Is(Bool)], Gives::Is(Bool)),
    aggregate("stddev", &[Arg::AsFloat], NUMBER),
    aggregate("stddev_pop", &[Arg::AsFloat], NUMBER),
    aggregate("stddev_samp", &[Arg::AsFloat], NUMBER),
    aggregate("variance", &[Arg::AsFloat], NUMBER),
    aggregate("var_pop", &[Arg::AsFloat], NUMBER),
    aggregate("var_samp", &[Arg::AsFloat], NUMBER),
    collects("string_agg", &[TEXT, Arg::Short], Text),
    collects("array_agg", &[Arg::Is(Int)], IntArray),
    collects("array_agg", &[TEXT], TextArray),
    collects("jsonb_agg", &[Arg::Any], Jsonb),
    collects("jsonb_object_agg", &[TEXT, Arg::Any], Jsonb),
    // Over the rows around.
    window("row_number", &[], INT),
    window("rank", &[], INT),
    window("dense_rank", &[], INT),
    window("percent_rank", &[], NUMBER),
    window("cume_dist", &[], NUMBER),
    window("ntile", &[STEPS], INT),
    optional(window("lag", &[Arg::Any, STEPS], Gives::Same), 1),
    optional(window("lead", &[Arg::Any, STEPS], Gives::Same), 1),
    window("first_value", &[Arg::Any], Gives::Same),
    window("last_value", &[Arg::Any], Gives::Same),
    window("nth_value", &[Arg::Any, STEPS], Gives::Same),
];
