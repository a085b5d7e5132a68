package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// loop runs until every request has ended.
func (s *simulation) loop() error {
	for s.ended < s.config.Jobs {
		// Arrivals stay outside of the heap: there is one to come at any time.
		if s.arrived < s.config.Jobs && (len(s.queue.heap) == 0 || s.next < s.queue.heap[0].at) {
			s.now = s.next
			if err := s.arrive(); err != nil {
				return err
			}
		} else if len(s.queue.heap) > 0 {
			h := s.queue.pop()
			s.now = h.at
			if err := s.handle(h); err != nil {
				return err
			}
		} else {
			return errors.New("sim: requests are under way that nothing will end")
		}
		s.coroutines.start()
	}
	return nil
}

func (s *simulation) handle(h happening) error {
	switch h.kind() {
	case arrives:
		s.enter(h.a)
	case completes:
		s.complete(h.a, h.b)
	case fails:
		s.servers[s.jobs[h.a].server].inFlight--
		s.answer(h.a, true)
	case refused:
		s.answer(h.a, true)
	case answered:
		s.end(h.a)
	case begins:
		return s.begin(h.a, h.b)
	case ceases:
		return s.cease(h.a, h.b)
	case resumes:
		s.coroutines.resume(h.a)
	case refreshes:
		for i := range s.servers {
			s.servers[i].told = s.servers[i].load()
		}
		s.queue.push(s.now+max(1, s.duration(s.config.StaleLoads)), refreshes, 0, 0)
	case releases:
		for _, j := range s.held {
			s.release(j)
		}
		s.held = s.held[:0]
	case reports:
		s.report()
		s.queue.push(s.now+max(1, s.duration(s.config.Reports)), reports, 0, 0)
	}
	return nil
}

// arrive lets a client pick a server for a new request.
func (s *simulation) arrive() error {
	number := s.arrived
	s.arrived++
	who := int32(0)
	if len(s.clients) > 1 {
		who = int32(s.workload.IntN(len(s.clients)))
	}
	size := s.config.Service.draw(s.workload)
	if !nonNegative(size) {
		return fmt.Errorf("sim: Service drew %v, expected a number that is positive and finite", size)
	}
	size *= s.unit
	s.next = s.now + time.Duration(s.workload.ExpFloat64()*s.between)

	measured := number >= s.warm
	if number == s.warm {
		s.tally.open, s.tally.at, s.tally.opened = true, float64(s.now), float64(s.now)
	}
	s.tally.change(float64(s.now), 1)
	if s.arrived == s.config.Jobs {
		s.tally.open, s.tally.closed = false, float64(s.now)
	}

	client := &s.clients[who]
	pick, err := client.balancer.Pick()
	client.picks++
	j := s.place()
	x := &s.jobs[j]
	*x = job{pick: pick, size: size, start: s.now, number: int32(number), client: who, server: -1}
	if err != nil { // no backends
		if measured {
			s.tally.unserved++
		}
		x.failed = true
		s.end(j)
		return nil
	}
	x.server = pick.Value
	if client.latest != nil {
		client.latest[x.server] = pick
	}
	if measured {
		s.tally.picks[x.server]++
		s.tally.pending++
		if s.crosses(who, x.server) {
			s.tally.crossed++
		}
	}
	if trip := s.trip(who, x.server); trip > 0 {
		s.queue.push(s.now+trip/2, arrives, j, 0)
	} else {
		s.enter(j)
	}
	return nil
}

// place returns a free place for a request.
func (s *simulation) place() int32 {
	if n := len(s.free); n > 0 {
		j := s.free[n-1]
		s.free = s.free[:n-1]
		return j
	}
	s.jobs = append(s.jobs, job{})
	return int32(len(s.jobs) - 1)
}

func (s *simulation) crosses(client, server int32) bool {
	return len(s.config.Zones) > 0 && s.clients[client].zone != s.config.Servers[s.servers[server].group].Zone
}

// trip is the round trip between a client and a server.
func (s *simulation) trip(client, server int32) time.Duration {
	if s.crossing > 0 && s.crosses(client, server) {
		return s.network + s.crossing
	}
	return s.network
}

// enter lets a request into its server.
func (s *simulation) enter(j int32) {
	x := &s.jobs[j]
	sv := &s.servers[x.server]
	if sv.down {
		s.queue.push(s.now+sv.after, refused, j, 0)
		return
	}
	x.entered, x.inFlight = s.now, int32(sv.inFlight)
	sv.inFlight++
	if int(x.number) >= s.warm {
		s.tally.maxQueue = max(s.tally.maxQueue, sv.inFlight)
	}
	if sv.failing > 0 && s.chance.Float64() < sv.failing {
		s.queue.push(s.now+sv.after, fails, j, 0)
		return
	}
	if sv.enter(s.now, j, x.size) {
		s.schedule(x.server)
	}
}

// schedule replaces the scheduled completion of a server.
func (s *simulation) schedule(server int32) {
	sv := &s.servers[server]
	sv.version++
	if at, ok := sv.next(); ok {
		s.queue.push(max(at, s.now), completes, server, sv.version)
	}
}

func (s *simulation) complete(server, version int32) {
	sv := &s.servers[server]
	if version != sv.version {
		return
	}
	j := sv.finish(s.now)
	s.schedule(server)
	sv.inFlight--
	x := &s.jobs[j]
	sv.estimate.learn(int(x.inFlight), s.now-x.entered)
	s.answer(j, false)
}

// answer sends the answer of a request back to its client.
func (s *simulation) answer(j int32, failed bool) {
	x := &s.jobs[j]
	x.failed = failed
	if s.config.Piggyback && !s.servers[x.server].down {
		x.load = s.load(x.server)
	}
	if trip := s.trip(x.client, x.server); trip > 0 {
		s.queue.push(s.now+trip-trip/2, answered, j, 0)
	} else {
		s.end(j)
	}
}

// end counts a request that has ended, and tells the balancer.
func (s *simulation) end(j int32) {
	x := &s.jobs[j]
	s.ended++
	s.tally.change(float64(s.now), -1)
	x.latency = s.now - x.start
	if int(x.number) >= s.warm && x.server >= 0 {
		group := s.servers[x.server].group
		if x.failed {
			s.tally.failures[group]++
		} else {
			s.tally.all.add(x.latency)
			s.tally.groups[group].add(x.latency)
		}
	}
	if s.config.Trace != nil {
		s.config.Trace(Request{
			Number: int(x.number), Client: int(x.client), Server: int(x.server),
			Start: float64(x.start) / s.unit, Latency: float64(x.latency) / s.unit,
			Size: x.size / s.unit, Failed: x.failed,
		})
	}
	if s.config.StaleEnds > 0 {
		period := max(1, s.duration(s.config.StaleEnds))
		if len(s.held) == 0 {
			s.queue.push(s.now-s.now%period+period, releases, 0, 0)
		}
		s.held = append(s.held, j)
		return
	}
	s.release(j)
}

// release tells the balancer that a request has ended.
func (s *simulation) release(j int32) {
	x := &s.jobs[j]
	if x.server >= 0 {
		if s.config.Piggyback && !x.failed {
			x.pick.Report(x.load)
		}
		if s.config.StaleEnds > 0 && !x.failed {
			x.pick.Observe(x.latency)
		}
		var err error
		if x.failed {
			err = errFailed
		}
		x.pick.Done(err)
	}
	s.free = append(s.free, j)
}

// load is what a server tells of its load.
func (s *simulation) load(server int32) balance.Load {
	if s.config.StaleLoads > 0 {
		return s.servers[server].told
	}
	return s.servers[server].load()
}
