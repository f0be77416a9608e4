"""Reads SQL texts (a JSON list on standard input) by the parser of Postgres, and says what is in them: a JSON list of sets."""

import json
import sys

from pglast import ast, parse_sql
from pglast.visitors import Visitor

# Kinds of nodes that no guarded statement has.
FORBIDDEN = (
    ast.IntoClause, ast.LockingClause, ast.RangeTableSample, ast.RangeTableFunc, ast.SetToDefault, ast.CurrentOfExpr,
    ast.SQLValueFunction, ast.XmlExpr, ast.XmlSerialize, ast.GroupingSet, ast.GroupingFunc, ast.RowExpr, ast.A_Indirection,
    ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt, ast.MultiAssignRef,
)


def dotted(names):
    return ".".join(name.sval for name in names)


class Finder(Visitor):
    def __init__(self):
        kinds = "relations functions types operators parts strings forbidden"
        self.found = {kind: set() for kind in kinds.split()}

    def visit(self, _ancestors, node):
        if isinstance(node, ast.RangeVar):
            names = [name for name in (node.catalogname, node.schemaname, node.relname) if name]
            self.found["relations"].add(".".join(names))
        elif isinstance(node, ast.FuncCall):
            self.found["functions"].add(dotted(node.funcname))
        elif isinstance(node, ast.TypeName):
            self.found["types"].add(dotted(node.names))
        elif isinstance(node, ast.A_Expr):
            self.found["operators"].add(dotted(node.name))
        elif isinstance(node, ast.CommonTableExpr):
            self.found["parts"].add(node.ctename)
        elif isinstance(node, ast.WithClause) and node.recursive:
            self.found["forbidden"].add("recursive")
        elif isinstance(node, ast.A_Const) and isinstance(node.val, ast.String):
            self.found["strings"].add(node.val.sval)
        elif isinstance(node, ast.CollateClause) and dotted(node.collname) != "pg_catalog.C":
            self.found["forbidden"].add("collation")
        elif isinstance(node, FORBIDDEN):
            self.found["forbidden"].add(type(node).__name__)


def read(text):
    try:
        statements = parse_sql(text)
    except Exception as error:  # noqa: BLE001: the test shows it
        return {"error": str(error)}
    finder = Finder()
    finder(statements)
    found = {kind: sorted(names) for kind, names in finder.found.items()}
    found["statements"] = sorted({type(statement.stmt).__name__ for statement in statements})
    found["error"] = None if len(statements) == 1 else "several statements"
    return found


json.dump([read(text) for text in json.load(sys.stdin)], sys.stdout)
