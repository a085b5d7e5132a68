package sim

import "fmt"

// Action is what an [Event] does to a server.
type Action uint8

const (
	// Slow multiplies the speed by Factor: another tenant of the machine, or with a
	// factor of 0 the pause of a garbage collector.
	Slow Action = iota

	// Fail makes requests fail with probability Prob, After their arrival and
	// without any work. Probes are answered.
	Fail

	// Crash loses all requests of the server, and makes those and new ones, and
	// probes, fail After that. The server is still in the balancers' sets.
	Crash

	// Leave takes the server out of the balancers' sets. It finishes what it has.
	Leave

	// Join puts the server into the balancers' sets, as a new one. Its speed is
	// multiplied by Factor For that long: caches are cold.
	Join
)

func (a Action) String() string {
	if a > Join {
		return fmt.Sprintf("Action(%d)", uint8(a))
	}
	return [...]string{"Slow", "Fail", "Crash", "Leave", "Join"}[a]
}

// Event is something that happens to servers.
type Event struct {
	// At is when, from the start.
	At float64

	// Do is what.
	Do Action

	// First and Count are the servers that it happens to, by their numbers. A Count of
	// 0 means 1.
	First, Count int

	// For is how long it lasts. 0 means until the end, and for Join that the server is
	// not slow. A server whose Leave is over joins.
	For float64

	// Every makes it come again, with pauses that are exponentially distributed and
	// Every long on average, on each of the servers by itself. The first pause begins
	// at At. Not with Leave and Join.
	Every float64

	// Factor is what Slow and Join multiply the speed by, from 0 to 1. A factor of 0
	// needs a For.
	Factor float64

	// Prob is the probability that Fail makes a request fail. 0 means 1.
	Prob float64

	// After is the time until Fail and Crash show at the server: 0 is a connection
	// that is refused, a long one a timeout.
	After float64
}

// validate checks an event, which errors call where.
func (e Event) validate(where string, servers int) error {
	switch {
	case e.Do > Join:
		return fmt.Errorf("%s.Do is %v, expected Slow, Fail, Crash, Leave or Join", where, e.Do)
	case !nonNegative(e.At):
		return fmt.Errorf("%s.At is %v, expected 0 or more and finite", where, e.At)
	case !nonNegative(e.For):
		return fmt.Errorf("%s.For is %v, expected 0 (to the end) or more and finite", where, e.For)
	case !nonNegative(e.Every):
		return fmt.Errorf("%s.Every is %v, expected 0 (once) or more and finite", where, e.Every)
	case !nonNegative(e.After):
		return fmt.Errorf("%s.After is %v, expected 0 or more and finite", where, e.After)
	case !(e.Factor >= 0 && e.Factor <= 1):
		return fmt.Errorf("%s.Factor is %v, expected 0 to 1", where, e.Factor)
	case !(e.Prob >= 0 && e.Prob <= 1):
		return fmt.Errorf("%s.Prob is %v, expected 0 (for 1) to 1", where, e.Prob)
	case e.Do == Slow && e.Factor == 0 && e.For == 0:
		return fmt.Errorf("%s.Factor is 0 and For is 0, expected one of them: the servers would stand still for ever", where)
	case e.Every > 0 && e.Do >= Leave:
		return fmt.Errorf("%s.Every is %v, expected 0", where, e.Every)
	case e.Every > 0 && e.For == 0:
		return fmt.Errorf("%s.Every is %v and For is 0, expected more than 0 for both", where, e.Every)
	case e.First < 0 || e.First >= servers:
		return fmt.Errorf("%s.First is %d, expected 0 to %d", where, e.First, servers-1)
	case e.Count < 0 || e.Count > servers-e.First:
		return fmt.Errorf("%s.Count is %d, expected 0 (for 1) to %d", where, e.Count, servers-e.First)
	}
	return nil
}
