package main

import (
	"math/rand/v2"
	"slices"
)

// The size of the shop.
const (
	orders   = 20 // that change again and again
	atOnce   = 4  // requests under way
	drainers = 2  // processes, for the ways that have any
)

// A request changes an order, and tells about it.
type request struct {
	number    int
	order     int
	rollsBack bool
}

// A moment is one step of a request or of a drainer. Between two steps of one,
// others take theirs: that is all that concurrency is here, and so the script
// always plays in the same way.
type moment struct {
	what    what
	request request
	drainer int
	// crash: the process dies in the middle of the step. For the shop that is
	// between the change and the event, whichever it writes first; for a
	// drainer, when the broker has taken the first few of its batch; it is
	// doomed from its claim on.
	crash bool
}

type what int

const (
	begins    what = iota // a request arrives
	commits               // its transaction begins and ends
	sends                 // it does what is to be done after the transaction
	claims                // a drainer looks for events
	publishes             // it gives them to the broker, and writes that down
)

// A script is what happens, the same for each way.
type script struct {
	moments                                []moment
	rollbacks, shopCrashes, drainerCrashes int
}

// newScript writes a script with so many requests.
func newScript(seed uint64, requests int) script {
	rng := rand.New(rand.NewPCG(seed, 7))
	var s script
	type underWay struct {
		request
		next what
	}
	var open []underWay
	var working, doomed [drainers]bool
	for number := 0; number < requests || len(open) > 0; {
		if rng.IntN(6) == 0 {
			d := rng.IntN(drainers)
			m := moment{what: publishes, drainer: d, crash: doomed[d]}
			if !working[d] {
				m.what, m.crash = claims, rng.IntN(60) == 0
			} else if m.crash {
				s.drainerCrashes++
			}
			working[d], doomed[d] = !working[d], m.crash && !working[d]
			s.moments = append(s.moments, m)
			continue
		}
		if number < requests && len(open) < atOnce && (len(open) == 0 || rng.IntN(2) == 0) {
			r := request{number: number, order: rng.IntN(orders), rollsBack: rng.IntN(12) == 0}
			number++
			s.moments = append(s.moments, moment{what: begins, request: r})
			open = append(open, underWay{r, commits})
			continue
		}
		i := rng.IntN(len(open))
		m := moment{what: open[i].next, request: open[i].request}
		switch {
		case m.what == commits && m.request.rollsBack:
			s.rollbacks++
			open = slices.Delete(open, i, i+1)
		case m.what == commits && rng.IntN(100) == 0:
			m.crash = true
			s.shopCrashes++
			open = nil // all that the process was doing
		case m.what == commits:
			open[i].next = sends
		default:
			open = slices.Delete(open, i, i+1)
		}
		s.moments = append(s.moments, m)
	}
	return s
}
