package sim

import "fmt"

// Group is a number of like servers.
type Group struct {
	// Name is for the result.
	Name string

	// Count is the number of servers in the group.
	Count int

	// Speed is the work that each processor of a server does in a unit of time. 0
	// means 1.
	Speed float64

	// Workers is the number of requests that a server works on at a time, at Speed
	// each; the others wait, first come, first served. 0 means 1.
	Workers int

	// Sharing makes a server work on all its requests at once, on Workers processors:
	// if there are more requests they share the processors evenly.
	Sharing bool

	// Weight and Zone are those of the backend.
	Weight float64
	Zone   string

	// Absent servers are not there until an event lets them join.
	Absent bool
}

// validate checks a group, which errors call where.
func (g Group) validate(where string) error {
	switch {
	case g.Count < 1 || g.Count > most:
		return fmt.Errorf("%s.Count is %d, expected 1 to %d", where, g.Count, most)
	case !nonNegative(g.Speed):
		return fmt.Errorf("%s.Speed is %v, expected 0 (for 1) or more and finite", where, g.Speed)
	case g.Workers < 0 || g.Workers > most:
		return fmt.Errorf("%s.Workers is %d, expected 0 (for 1) to %d", where, g.Workers, most)
	case !nonNegative(g.Weight):
		return fmt.Errorf("%s.Weight is %v, expected 0 (for 1) or more and finite", where, g.Weight)
	}
	return nil
}
