/// What the units of a VM are doing.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum UnitsState {
    /// All are stopped.
    Stopped,
    /// All are running.
    Running,
    /// All are stopped and their states are inconsistent, because a restore or a reset failed midway. Only a
    /// successful reset makes them usable again.
    Inconsistent,
}

impl std::fmt::Display for UnitsState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Inconsistent => "inconsistent since a restore or a reset failed",
        })
    }
}
