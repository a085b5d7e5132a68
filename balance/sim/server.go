package sim

import (
	"math"
	"slices"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// server is a model of one server. Every request in service has got the same work
// per time as the others have since it started, so that one running total and a heap
// of the totals at which requests end describe them all, whether they share the
// processors or own one each. It costs O(log n) a request.
type server struct {
	group   int32
	workers int
	sharing bool
	speed   float64 // by configuration
	weight  float64

	slowed []float64 // what speed is multiplied by at present
	rate   float64   // all of it: work a nanosecond that one processor does

	serving []serving     // heap by ends
	waiting fifo          // first come, first served
	work    float64       // that each request in service would have got since the start
	at      time.Duration // of work
	version int32         // of the next completion; those scheduled before are void

	inFlight int // known to the server: in service, waiting, or failing
	member   bool
	down     bool
	failing  float64       // probability
	after    time.Duration // until a failure shows

	estimate estimate
	told     balance.Load // as of the last refresh
}

type serving struct {
	ends float64 // value of work
	job  int32
}

// pace returns the work that each request in service gets a nanosecond.
func (s *server) pace() float64 {
	if n := len(s.serving); n > s.workers {
		return s.rate * float64(s.workers) / float64(n)
	}
	return s.rate
}

func (s *server) advance(now time.Duration) {
	if now > s.at {
		s.work += float64(now-s.at) * s.pace()
		s.at = now
	}
}

// enter takes a request in. It reports whether that changes the next completion.
func (s *server) enter(now time.Duration, job int32, size float64) bool {
	if !s.sharing && len(s.serving) >= s.workers {
		s.waiting.push(entry{size: size, job: job})
		return false
	}
	s.advance(now)
	s.start(job, size)
	return s.serving[0].job == job || len(s.serving) > s.workers
}

func (s *server) start(job int32, size float64) {
	h := append(s.serving, serving{})
	x := serving{ends: s.work + size, job: job}
	i := len(h) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].ends <= x.ends {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = x
	s.serving = h
}

// finish ends the request that is the next to complete, and returns it.
func (s *server) finish(now time.Duration) int32 {
	s.advance(now)
	job := s.serving[0].job
	n := len(s.serving) - 1
	x := s.serving[n]
	h := s.serving[:n]
	if n > 0 {
		i := 0
		for {
			child := 2*i + 1
			if child >= n {
				break
			}
			if right := child + 1; right < n && h[right].ends < h[child].ends {
				child = right
			}
			if x.ends <= h[child].ends {
				break
			}
			h[i] = h[child]
			i = child
		}
		h[i] = x
	}
	s.serving = h
	if e, ok := s.waiting.pop(); ok {
		s.start(e.job, e.size)
	}
	return job
}

// next returns the time of the next completion, if there is to be one.
func (s *server) next() (time.Duration, bool) {
	if len(s.serving) == 0 || s.rate == 0 {
		return 0, false
	}
	left := max(0, s.serving[0].ends-s.work)
	return s.at + time.Duration(math.Ceil(left/s.pace())), true
}

// drop loses all requests, as a crash does, and returns them.
func (s *server) drop() []int32 {
	var lost []int32
	for _, x := range s.serving {
		lost = append(lost, x.job)
	}
	for {
		e, ok := s.waiting.pop()
		if !ok {
			break
		}
		lost = append(lost, e.job)
	}
	s.serving = s.serving[:0]
	slices.Sort(lost)
	return lost
}

// slow multiplies the speed, until quicken is called with the same factor.
func (s *server) slow(now time.Duration, factor float64) {
	s.advance(now)
	s.slowed = append(s.slowed, factor)
	s.setRate()
}

func (s *server) quicken(now time.Duration, factor float64) {
	s.advance(now)
	if i := slices.Index(s.slowed, factor); i >= 0 {
		s.slowed = slices.Delete(s.slowed, i, i+1)
	}
	s.setRate()
}

func (s *server) setRate() {
	s.rate = s.speed
	for _, f := range s.slowed {
		s.rate *= f
	}
}

// load is what the server says of itself.
func (s *server) load() balance.Load {
	return balance.Load{InFlight: int64(s.inFlight), Latency: s.estimate.at(s.inFlight)}
}

type entry struct {
	size float64
	job  int32
}

// fifo is a queue in a slice that is moved down when half of it is used up.
type fifo struct {
	entries []entry
	head    int
}

func (f *fifo) push(e entry) {
	if f.head > 32 && 2*f.head > len(f.entries) {
		f.entries = f.entries[:copy(f.entries, f.entries[f.head:])]
		f.head = 0
	}
	f.entries = append(f.entries, e)
}

func (f *fifo) pop() (entry, bool) {
	if f.head == len(f.entries) {
		return entry{}, false
	}
	e := f.entries[f.head]
	if f.head++; f.head == len(f.entries) {
		f.entries, f.head = f.entries[:0], 0
	}
	return e, true
}

// estimate is what a server has learnt of its latency by the number of requests that
// were in flight when a request arrived, as Prequal (NSDI 2024) asks of servers: an
// average over all numbers would go on calling a server fast while its queue grows.
type estimate struct {
	latency [64]float64 // 0 if nothing is known; more in flight count as 63
}

// gain is the part that a new latency has in an estimate.
const gain = 0.1

func (e *estimate) learn(inFlight int, latency time.Duration) {
	p := &e.latency[min(inFlight, len(e.latency)-1)]
	if *p == 0 {
		*p = float64(latency)
	} else {
		*p += gain * (float64(latency) - *p)
	}
}

// at returns the latency at a number in flight or, failing that, at the nearest.
func (e *estimate) at(inFlight int) time.Duration {
	i := min(inFlight, len(e.latency)-1)
	for d := range len(e.latency) {
		if i-d >= 0 && e.latency[i-d] > 0 {
			return time.Duration(e.latency[i-d])
		}
		if i+d < len(e.latency) && e.latency[i+d] > 0 {
			return time.Duration(e.latency[i+d])
		}
	}
	return 0
}
