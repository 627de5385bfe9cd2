//! Aggregates over windows that notice cancellation.
//!
//! The query engine computes a window in one go: for each row an aggregate takes rows and returns a value, which
//! may be as long as all rows before. `string_agg(…) over (order by …)` of some hundred thousand rows makes
//! gigabytes of them, without a check for cancellation. So each step of such an aggregate checks. Without a
//! window the engine itself checks between batches.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, ReversedUDAF,
    SetMonotonicity, Signature, WindowFunctionDefinition,
};
use datafusion::scalar::ScalarValue;

use crate::questions;

/// The aggregate of a window as a cancellable one; none if it is not an aggregate, or is cancellable already.
pub(super) fn stoppable(function: &WindowFunctionDefinition) -> Option<WindowFunctionDefinition> {
    match function {
        WindowFunctionDefinition::AggregateUDF(of) if !of.inner().is::<Stoppable>() => {
            let stoppable = Stoppable(Arc::clone(of));
            let stoppable = AggregateUDF::new_from_impl(stoppable);
            Some(WindowFunctionDefinition::AggregateUDF(Arc::new(stoppable)))
        }
        _ => None,
    }
}

/// An aggregate whose steps fail once the query is cancelled.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Stoppable(Arc<AggregateUDF>);

impl AggregateUDFImpl for Stoppable {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.human_display(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.display_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.0.return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(StoppableAccumulator(self.0.accumulator(arguments)?)))
    }

    fn create_sliding_accumulator(
        &self,
        arguments: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(StoppableAccumulator(self.0.create_sliding_accumulator(arguments)?)))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.0.reverse_udf() {
            ReversedUDAF::Reversed(of) => {
                let stoppable = AggregateUDF::new_from_impl(Stoppable(of));
                ReversedUDAF::Reversed(Arc::new(stoppable))
            }
            other => other,
        }
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn is_descending(&self) -> Option<bool> {
        self.0.is_descending()
    }

    fn default_value(&self, of: &DataType) -> Result<ScalarValue> {
        self.0.default_value(of)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.0.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.0.supports_within_group_clause()
    }

    fn set_monotonicity(&self, of: &DataType) -> SetMonotonicity {
        self.0.inner().set_monotonicity(of)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

/// The state of an aggregate for one partition of a window.
#[derive(Debug)]
struct StoppableAccumulator(Box<dyn Accumulator>);

fn check() -> Result<()> {
    match questions::is_stopped() {
        true => Err(DataFusionError::ResourcesExhausted("the query was stopped".to_owned())),
        false => Ok(()),
    }
}

impl Accumulator for StoppableAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        check()?;
        self.0.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        check()?;
        self.0.evaluate()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        check()?;
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        check()?;
        self.0.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        check()?;
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }
}

/// Makes the aggregate of a window function in a statement cancellable.
pub(super) fn stoppable_call(expression: &mut Expr) -> bool {
    let Expr::WindowFunction(call) = expression else { return false };
    match stoppable(&call.fun) {
        Some(function) => {
            call.fun = function;
            true
        }
        None => false,
    }
}
