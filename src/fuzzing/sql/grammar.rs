//! Statements made from choices: most of them pass the guard, and some are strange.

/// A statement of the grammar, by the bytes' choices.
pub fn sql_text(choices: &[u8]) -> String {
    let mut grammar = Grammar { choices, at: 0, depth: 0 };
    let mut text = grammar.query();
    if grammar.below(64) == 0 {
        text.push_str(grammar.one(&["; DROP TABLE tasks", ";", " --", "/* */", "; SELECT 1", " FOR UPDATE"]));
    }
    text
}

struct Grammar<'a> {
    choices: &'a [u8],
    at: usize,
    depth: usize,
}

/// Deeper than this the grammar only has words.
const DEPTH: usize = 6;

impl Grammar<'_> {
    /// A number below `end`; 0 after the last byte.
    fn below(&mut self, end: u8) -> u8 {
        let byte = self.choices.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        byte % end.max(1)
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        let at = self.below(u8::try_from(of.len()).unwrap_or(u8::MAX));
        of.get(usize::from(at)).copied().unwrap_or_default()
    }

    fn maybe(&mut self, of_256: u8, text: impl FnOnce(&mut Self) -> String) -> String {
        // Not for ever: behind the last byte every choice is the first one.
        let is_over = self.at >= self.choices.len() || self.depth > DEPTH;
        if !is_over && self.below(255) < of_256 { text(self) } else { String::new() }
    }

    fn query(&mut self) -> String {
        self.depth += 1;
        let with = self.maybe(24, |g| {
            let name = g.one(&["x", "users", "tasks", "\"X\""]);
            format!("WITH {}{name} AS ({}) ", g.one(&["", "", "", "RECURSIVE "]), g.query())
        });
        let body = self.select();
        let body = match self.below(24) {
            0 => format!(
                "{body} {} {}",
                self.one(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]),
                self.select()
            ),
            1 => format!("({body})"),
            _ => body,
        };
        let order = self.maybe(60, |g| {
            format!(" ORDER BY {}{}", g.expr(), g.one(&["", " DESC", " NULLS FIRST", " USING >"]))
        });
        let limit = self.maybe(40, |g| {
            format!(" LIMIT {}", g.one(&["1", "$2", "ALL", "NULL", "1 OFFSET 2", "(SELECT 1)"]))
        });
        let lock = self.maybe(4, |_| " FOR SHARE".to_owned());
        self.depth -= 1;
        format!("{with}{body}{order}{limit}{lock}")
    }

    fn select(&mut self) -> String {
        let distinct = self.maybe(24, |g| g.one(&["DISTINCT ", "ALL ", "DISTINCT ON (id) "]).to_owned());
        let mut items = vec![self.item()];
        while items.len() < 4 && self.below(3) == 0 {
            items.push(self.item());
        }
        let into = self.maybe(3, |_| " INTO x".to_owned());
        let from = self.from();
        let filter = self.maybe(130, |g| format!(" WHERE {}", g.truth()));
        let group = self
            .maybe(30, |g| format!(" GROUP BY {}", g.one(&["id", "1", "data->>'a'", "ROLLUP (id)", "a"])));
        let having = self.maybe(15, |g| format!(" HAVING {}", g.truth()));
        format!("SELECT {distinct}{}{into} FROM {from}{filter}{group}{having}", items.join(", "))
    }

    fn item(&mut self) -> String {
        match self.below(12) {
            0 => self.one(&["*", "tasks.*", "t.*", "(tasks).*", "* EXCEPT (id)"]).to_owned(),
            1..4 => {
                format!("{} AS {}", self.expr(), self.one(&["a", "users", "\"select\"", "\"a\"\"b\"", "id"]))
            }
            _ => self.expr(),
        }
    }

    fn from(&mut self) -> String {
        let first = self.relation();
        match self.below(16) {
            0 => format!("{first}, {}", self.relation()),
            1 => format!("{first} a JOIN {} b ON {}", self.relation(), self.truth()),
            2 => "tasks a JOIN tasks b ON a.id = b.id".to_owned(),
            3 => format!(
                "tasks, {}(data) AS e",
                self.one(&["jsonb_each", "jsonb_array_elements", "jsonb_object_keys", "unnest", "pg_ls_dir"])
            ),
            4 => format!("{first} t"),
            _ => first,
        }
    }

    fn relation(&mut self) -> String {
        if self.depth < DEPTH && self.below(10) == 0 {
            return format!(
                "{}({}) AS {}",
                self.one(&["", "", "LATERAL "]),
                self.query(),
                self.one(&["t", "x", "s(a)"])
            );
        }
        match self.below(24) {
            0 => self.one(&[
                "users",
                "tbl_1",
                "raystream.changes",
                "\"raystream\".\"tbl_1\"",
                "pg_stat_activity",
                "public.tasks",
                "x",
            ]),
            1 => self.one(&[
                "ONLY tasks",
                "tasks TABLESAMPLE SYSTEM (1)",
                "generate_series(1,9)",
                "(VALUES (1)) v",
                "U&\"t\\0061sks\"",
            ]),
            _ => self.one(&["tasks", "tasks", "TASKS", "\"tasks\"", "tasks AS t"]),
        }
        .to_owned()
    }

    fn truth(&mut self) -> String {
        self.depth += 1;
        let text = if self.depth > DEPTH {
            self.one(&["true", "id = 'a'", "data ? 'a'"]).to_owned()
        } else {
            match self.below(13) {
                0 => format!("{} AND {}", self.truth(), self.truth()),
                1 => format!("({} OR {})", self.truth(), self.truth()),
                2 => format!("NOT {}", self.truth()),
                3 => format!(
                    "{} {} {}",
                    self.expr(),
                    self.one(&[
                        "=",
                        "<>",
                        "<",
                        ">=",
                        "~",
                        "@>",
                        "LIKE",
                        "IS DISTINCT FROM",
                        "OPERATOR(pg_catalog.=)"
                    ]),
                    self.expr()
                ),
                4 => format!(
                    "id {} {}",
                    self.one(&["=", "<", "LIKE", "ILIKE", "~", "SIMILAR TO"]),
                    self.text()
                ),
                5 => format!("{} IS {}NULL", self.expr(), self.one(&["", "NOT "])),
                6 => format!("{} IN ({}, {})", self.expr(), self.expr(), self.expr()),
                7 => format!("id {}IN ({})", self.one(&["", "NOT "]), self.query()),
                8 => format!("EXISTS ({})", self.query()),
                9 => format!("{} BETWEEN {} AND {}", self.number(), self.number(), self.number()),
                10 => format!(
                    "data {} {}",
                    self.one(&["@>", "<@", "?", "?|", "@?", "@@"]),
                    self.one(&["'{}'", "'a'", "ARRAY['a']", "$3", "'$.a'"])
                ),
                11 => format!(
                    "id = ANY({})",
                    self.one(&["ARRAY['a']", "$1", "(SELECT id FROM users)", "'{a}'"])
                ),
                _ => format!("({})::{} IS TRUE", self.json(), self.one(&["bool", "boolean", "regclass"])),
            }
        };
        self.depth -= 1;
        text
    }

    fn expr(&mut self) -> String {
        match self.below(8) {
            0..3 => self.text(),
            3..5 => self.number(),
            5 | 6 => self.json(),
            _ => self.strange(),
        }
    }

    fn text(&mut self) -> String {
        self.depth += 1;
        let text = if self.depth > DEPTH {
            self.one(&["id", "'a'", "$1", "data->>'a'"]).to_owned()
        } else {
            match self.below(14) {
                0 => format!(
                    "{}({})",
                    self.one(&[
                        "lower",
                        "upper",
                        "md5",
                        "btrim",
                        "pg_read_file",
                        "query_to_xml",
                        "\"lower\""
                    ]),
                    self.text()
                ),
                1 => format!("{} || {}", self.text(), self.text()),
                2 => format!("replace({}, {}, {})", self.text(), self.text(), self.text()),
                3 => format!("substring({} from {} for 2)", self.text(), self.number()),
                4 => format!("CASE WHEN {} THEN {} ELSE {} END", self.truth(), self.text(), self.text()),
                5 => format!("COALESCE({}, {})", self.text(), self.text()),
                6 => format!(
                    "{}({}, {})",
                    self.one(&["concat", "left", "repeat", "lpad", "split_part", "format", "string_agg"]),
                    self.text(),
                    self.expr()
                ),
                7 => format!("{}::text", self.expr()),
                8 => format!("({})", self.query()),
                9 => {
                    format!("{} COLLATE {}", self.text(), self.one(&["\"C\"", "\"de\"", "pg_catalog.\"C\""]))
                }
                _ => self
                    .one(&[
                        "id",
                        "data->>'a'",
                        "tasks.id",
                        "'it''s'",
                        "'\\'",
                        "t.id",
                        "a.id",
                        "$1",
                        "$4",
                        "'users'",
                        "\"id\"",
                        "E'\\n'",
                        "$$a$$",
                    ])
                    .to_owned(),
            }
        };
        self.depth -= 1;
        text
    }

    fn number(&mut self) -> String {
        self.depth += 1;
        let text = if self.depth > DEPTH {
            self.one(&["1", "_version", "count(*)", "2.5"]).to_owned()
        } else {
            match self.below(12) {
                0 => format!(
                    "({} {} {})",
                    self.number(),
                    self.one(&["+", "-", "*", "/", "%", "^", "<<"]),
                    self.number()
                ),
                1 => format!(
                    "{}({})",
                    self.one(&["abs", "round", "sqrt", "sum", "avg", "max", "pg_sleep", "factorial"]),
                    self.number()
                ),
                2 => format!("length({})", self.text()),
                3 => format!(
                    "(data->>'n')::{}",
                    self.one(&["int", "numeric", "float8", "numeric(10,2)", "oid", "money"])
                ),
                4 => format!(
                    "count({}) FILTER (WHERE {})",
                    self.one(&["*", "DISTINCT id", "id", "tasks"]),
                    self.truth()
                ),
                5 => format!(
                    "{} OVER ({}ORDER BY {}{})",
                    self.one(&["row_number()", "rank()", "sum(1)", "lag(id, 1)"]),
                    self.one(&["", "PARTITION BY id "]),
                    self.expr(),
                    self.one(&["", " ROWS 1 PRECEDING", " RANGE UNBOUNDED PRECEDING", " GROUPS 1 PRECEDING"])
                ),
                6 => format!("-{}", self.number()),
                7 => format!("extract({} from now())", self.one(&["year", "epoch", "timezone"])),
                _ => self
                    .one(&[
                        "1", "_version", "_order", "2.5", "1e9", "1e999", "$2", "0x1F", "count(*)", "_txid",
                    ])
                    .to_owned(),
            }
        };
        self.depth -= 1;
        text
    }

    fn json(&mut self) -> String {
        self.depth += 1;
        let text = if self.depth > DEPTH {
            "data".to_owned()
        } else {
            match self.below(8) {
                0 => format!("{} -> {}", self.json(), self.one(&["'a'", "0", "$1", "-1", "id"])),
                1 => format!("{} #> {}", self.json(), self.one(&["'{a,b}'", "ARRAY['a']", "$1"])),
                2 => format!("jsonb_build_object('a', {})", self.expr()),
                3 => format!("to_jsonb({})", self.one(&["id", "tasks", "data", "t"])),
                4 => format!("{}::jsonb", self.text()),
                5 => format!("jsonb_agg({})", self.expr()),
                _ => self
                    .one(&["data", "tasks.data", "'{\"a\":[1]}'::jsonb", "$3", "data['a']", "data - 'a'"])
                    .to_owned(),
            }
        };
        self.depth -= 1;
        text
    }

    fn strange(&mut self) -> String {
        self.one(&[
            "now()",
            "now() - interval '1 day'",
            "date '2026-01-01'",
            "NULL",
            "true",
            "ctid",
            "xmin",
            "_owner",
            "tasks",
            "t",
            "current_user",
            "version()",
            "current_setting('a')",
            "U&\"i\\0064\"",
            "'users'::regclass",
            "pg_catalog.now()",
            "ROW(1)",
            "now() AT TIME ZONE 'UTC'",
            "(data->>'a')::timestamptz",
            "raystream.changes.after",
            "$9",
            "ARRAY[id]",
        ])
        .to_owned()
    }
}
