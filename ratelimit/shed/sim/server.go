package sim

import (
	"math"
	"time"
)

// server shares its workers among all that is in progress (processor sharing). Up to
// as many as there are workers go at full speed.
type server struct {
	workers, crowding float64

	at      time.Duration
	done    float64 // the work in nanoseconds that each request has got since the start
	jobs    []work  // a heap, the first to end first
	next    time.Duration
	waiting int // in front of it; for load

	// Integrals over nanoseconds: of the busy workers, of all requests, and of what
	// crowding has cost.
	busy, load, lost float64
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// work is a request in progress. It ends when the server has done so much.
type work struct {
	end  float64
	size float64
	job  *attempt // nil for a refusal
}

func newServer(workers int, crowding float64) *server {
	return &server{workers: float64(workers), crowding: crowding, next: never}
}

// rate is the speed of each of n requests.
func (s *server) rate(n float64) float64 {
	if n <= s.workers {
		return 1
	}
	return s.workers / n / (1 + s.crowding*(n/s.workers-1))
}

// advance lets the time pass, in which nothing begins or ends.
func (s *server) advance(now time.Duration) {
	d := float64(now - s.at)
	if d <= 0 {
		return
	}
	n := float64(len(s.jobs))
	s.at = now
	rate := s.rate(n)
	s.done += d * rate
	s.busy += d * min(n, s.workers)
	s.lost += d * (min(n, s.workers) - n*rate)
	s.load += d * (n + float64(s.waiting))
}

// begin takes up work.
func (s *server) begin(j *attempt, size float64) {
	w := work{end: s.done + size, size: size, job: j}
	s.jobs = append(s.jobs, w)
	i := len(s.jobs) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if w.end >= s.jobs[parent].end {
			break
		}
		s.jobs[i] = s.jobs[parent]
		i = parent
	}
	s.jobs[i] = w
	s.schedule()
}

// finish ends the work whose time has come.
func (s *server) finish() work {
	top := s.jobs[0]
	s.done = max(s.done, top.end)
	n := len(s.jobs) - 1
	w := s.jobs[n]
	s.jobs[n] = work{}
	s.jobs = s.jobs[:n]
	i := 0
	for child := 1; child < n; child = 2*i + 1 {
		if child+1 < n && s.jobs[child+1].end < s.jobs[child].end {
			child++
		}
		if s.jobs[child].end >= w.end {
			break
		}
		s.jobs[i] = s.jobs[child]
		i = child
	}
	if n > 0 {
		s.jobs[i] = w
	}
	s.schedule()
	return top
}

func (s *server) schedule() {
	if len(s.jobs) == 0 {
		s.next = never
		return
	}
	wait := (s.jobs[0].end - s.done) / s.rate(float64(len(s.jobs)))
	s.next = s.at + time.Duration(min(math.Ceil(max(wait, 0)), float64(farAway)))
}
