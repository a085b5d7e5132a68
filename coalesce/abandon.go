package coalesce

// An AbandonPolicy says what becomes of work that nobody waits for any more.
type AbandonPolicy int

const (
	// CancelWork ends the work's context. The next caller starts anew at once,
	// also when the abandoned work is slow to stop: two executions can overlap.
	CancelWork AbandonPolicy = iota

	// KeepRunning lets the work go on, and lets callers go on joining it. It is
	// for work that is worth finishing for its effect, such as filling a cache.
	// Set Timeout, which is then the only bound.
	KeepRunning

	// Exclusive ends the work's context as CancelWork does, but starts no other
	// execution of the key before the abandoned one has returned: those who come
	// meanwhile wait for it, and then for one common flight. The same holds for
	// a flight that was forgotten. It is for work of which two must never run at
	// once. Work that does not obey its context holds up its key.
	Exclusive
)
