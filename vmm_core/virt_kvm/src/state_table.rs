//! State as a table of elements, from whose rows saving, restoring and resetting are generated.

use virt::Error;

/// One element of `S`, the state of `T`.
pub(crate) struct Row<T, S> {
    /// What the element is; unique in its table.
    pub(crate) name: &'static str,
    /// Whether this host and configuration have the element. If not, it is neither read nor written.
    pub(crate) exists: fn(&T) -> bool,
    /// Refuses a saved element that no call to KVM would refuse.
    pub(crate) check: fn(&T, &S) -> Result<(), Error>,
    /// Reads the element into the state.
    pub(crate) read: fn(&T, &mut S) -> Result<(), Error>,
    /// Writes the element from the state.
    pub(crate) write: fn(&T, &S) -> Result<(), Error>,
    /// Puts the element's value at power-on into the state, where it is not the default.
    pub(crate) reset: fn(&T, &mut S) -> Result<(), Error>,
}

impl<T, S> Row<T, S> {
    /// An element that always exists, and of which nothing is done.
    pub(crate) const EMPTY: Self = Self {
        name: "",
        exists: |_| true,
        check: |_, _| Ok(()),
        read: |_, _| Ok(()),
        write: |_, _| Ok(()),
        reset: |_, _| Ok(()),
    };
}

/// Assigns, as a row's function wants to.
pub(crate) fn put<V>(element: &mut V, value: V) -> Result<(), Error> {
    *element = value;
    Ok(())
}

/// Reads the elements.
pub(crate) fn save<T, S: Default>(of: &T, order: &[&Row<T, S>]) -> Result<S, Error> {
    let mut state = S::default();
    for row in order.iter().filter(|row| (row.exists)(of)) {
        (row.read)(of, &mut state)?;
    }
    Ok(state)
}

/// Writes the elements, after all of them were checked.
pub(crate) fn restore<T, S>(of: &T, state: &S, order: &[&Row<T, S>]) -> Result<(), Error> {
    for row in order {
        (row.check)(of, state)?;
    }
    write(of, state, order)
}

/// Writes the elements' values at power-on.
pub(crate) fn reset<T, S: Default>(of: &T, order: &[&Row<T, S>]) -> Result<(), Error> {
    let mut state = S::default();
    for row in order.iter().filter(|row| (row.exists)(of)) {
        (row.reset)(of, &mut state)?;
    }
    write(of, &state, order)
}

fn write<T, S>(of: &T, state: &S, order: &[&Row<T, S>]) -> Result<(), Error> {
    for row in order.iter().filter(|row| (row.exists)(of)) {
        tracing::trace!(element = row.name, "writing state");
        (row.write)(of, state)?;
    }
    Ok(())
}
