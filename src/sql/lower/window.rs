//! Windows: `OVER (...)`.

use sqlparser::ast::{self, WindowFrameBound, WindowFrameUnits, WindowType};

use super::super::limits::FRAME_ROWS_MAX;
use super::super::tree::Window;
use super::{In, Lower, Lowered, refuse};

impl Lower<'_> {
    pub(super) fn window(&mut self, over: &WindowType, scope: In<'_, '_>) -> Lowered<Window> {
        let WindowType::WindowSpec(ast::WindowSpec {
            window_name: None,
            partition_by,
            order_by,
            window_frame,
        }) = over
        else {
            return refuse("a window is written out, as OVER (PARTITION BY .. ORDER BY ..)");
        };
        let mut partition = Vec::new();
        for expr in partition_by {
            let operand = self.expr(expr, scope)?;
            partition.push(self.settle(operand)?.0);
        }
        let order = self.order_inside(order_by, scope)?;
        let frame = window_frame.as_ref().map(|frame| self.frame(frame, scope)).transpose()?;
        Ok(Window { partition, order, frame })
    }

    fn frame(&mut self, frame: &ast::WindowFrame, scope: In<'_, '_>) -> Lowered<String> {
        let ast::WindowFrame { units, start_bound, end_bound } = frame;
        let units = match units {
            WindowFrameUnits::Rows => "ROWS",
            WindowFrameUnits::Range => "RANGE",
            WindowFrameUnits::Groups => return refuse("a frame of a window is of ROWS or RANGE"),
        };
        let start = self.bound(start_bound, units, scope)?;
        match end_bound {
            None => Ok(format!("{units} {start}")),
            Some(end) => Ok(format!("{units} BETWEEN {start} AND {}", self.bound(end, units, scope)?)),
        }
    }

    fn bound(&mut self, bound: &WindowFrameBound, units: &str, scope: In<'_, '_>) -> Lowered<String> {
        let (distance, word) = match bound {
            WindowFrameBound::CurrentRow => return Ok("CURRENT ROW".to_owned()),
            WindowFrameBound::Preceding(distance) => (distance, "PRECEDING"),
            WindowFrameBound::Following(distance) => (distance, "FOLLOWING"),
        };
        let Some(distance) = distance else { return Ok(format!("UNBOUNDED {word}")) };
        let distance = self.expr(distance, scope)?;
        match Self::whole(&distance)? {
            Some(rows) if rows <= FRAME_ROWS_MAX && units == "ROWS" => Ok(format!("{rows} {word}")),
            _ => refuse(format!("a frame of a window has at most {FRAME_ROWS_MAX} rows on a side")),
        }
    }
}
