//! Parts of the work that several processes do in turn.

use anyhow::Result;
use dist::World;
use weights::Parcel;

/// Makes a parcel of each part, each process of one part in turn, and passes them to `take` in the
/// order of the parts, at the first process.
///
/// # Errors
/// Returns an error of `make` or `take`, or if another process fails.
pub fn in_turn<P>(
    world: &World,
    parts: &[P],
    mut make: impl FnMut(&P) -> Result<Parcel>,
    mut take: impl FnMut(Parcel) -> Result<()>,
) -> Result<()> {
    for (number, round) in parts.chunks(world.size()).enumerate() {
        world.note(&format!("round {number}"));
        let own = round.get(world.rank()).map(&mut make).transpose()?;
        for parcel in world.gather_packed(own, pack, unpack)?.into_iter().flatten() {
            take(parcel)?;
        }
    }
    Ok(())
}

/// No bytes where a round has too few parts.
fn pack(parcel: &Option<Parcel>) -> Result<Vec<u8>> {
    Ok(parcel.as_ref().map_or(Ok(vec![]), Parcel::to_bytes)?)
}

fn unpack(bytes: &[u8]) -> Result<Option<Parcel>> {
    let parcel = (!bytes.is_empty()).then(|| Parcel::from_bytes(bytes));
    Ok(parcel.transpose()?)
}
