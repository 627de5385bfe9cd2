//! The cost of an export in requests to the store.

use capstan_model::Failure;
use capstan_storage_engine::segment::Layer;
use capstan_view::{Cost, ScopedView};

use super::Export;
use super::merge::slice_bytes;
use super::order::{Pending, pending, ranks, secrets};
use super::read::{Reading, SliceBytes};

/// See [`super::plan`].
pub(super) async fn plan(view: &ScopedView, what: &Export) -> Result<Cost, Failure> {
    let window = view.window_of(what.selection.range, &what.selection.filter()).await?;
    let ranks = ranks(view, &window, what.order).await?;
    let slice_bytes = slice_bytes(what.memory);
    // No packet is fetched.
    let sizes = SliceBytes { most: slice_bytes, eager: 0 };
    let range = what.selection.range;
    let mut cost = Cost::default();
    let (chosen, mut deleted) = pending(view, &window, what, &ranks);
    for segment in secrets(&window, &chosen, &mut deleted) {
        let mut plan = view.new_plan();
        plan.whole(Layer::Index, segment.layer(Layer::Index).map_or(0, |of| of.bytes));
        cost += plan.cost();
    }
    for Pending { segment, .. } in chosen {
        let mut plan = view.new_plan();
        if let Some(index) = segment.layer(Layer::Index) {
            plan.whole(Layer::Index, index.bytes);
        }
        let mut reading = Reading::begin(view, &segment, &what.selection, sizes).await?;
        reading.plan_flows(&what.selection, &mut plan)?;
        while let Some((slice, _)) = reading.next(range, slice_bytes).await? {
            slice.plan(&reading.open, slice_bytes, &mut plan)?;
        }
        cost += plan.cost();
    }
    Ok(cost)
}
