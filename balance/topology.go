package balance

// Zone prefers the backends of the caller's own zone.
type Zone struct {
	// Local is the zone of the caller, as in [Backend].Zone. Empty means no preference.
	Local string

	// Min is the number of healthy backends that the local zone must have: with fewer
	// there is no preference. 0 means 3.
	Min int

	// Clients is the part of all clients that are in the local zone, from 0 to 1, if it
	// is known. A zone with more clients than backends then sends the surplus elsewhere.
	Clients float64
}

// Subset gives each of many clients a few of the backends, so that each has fewer
// connections and sees more of the load of those that it has.
type Subset struct {
	// Client is the number of this client, from 0 to Clients-1.
	Client, Clients int

	// Size is the least number of backends for a client. 0 means that there are no
	// subsets.
	Size int
}
