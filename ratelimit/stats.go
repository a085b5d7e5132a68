package ratelimit

// Stats says how a [Keyed] is doing. Live well below Capacity/2 and few Inherited
// mean that its capacity is large enough.
type Stats struct {
	// Capacity is the number of slots, at least twice KeyedOptions.Capacity.
	Capacity int

	// Resident is the number of slots that hold a key. It never falls.
	Resident int

	// Live is the number of slots whose key has not its full burst: those that
	// carry information.
	Live int

	// Allowed and Denied count decisions.
	Allowed, Denied uint64

	// Inherited counts the decisions for a key that had no slot and found its set
	// full of live ones: it was treated as owing what the least of them owes.
	Inherited uint64
}
