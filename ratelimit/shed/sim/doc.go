// Package sim simulates a server that is asked for more than it can do, on a virtual
// clock, with the code of package shed in front of it, to show what each part of shed
// does to the answers. The same [Config] gives the same [Result], to the last bit.
//
//	r, err := sim.Run(sim.Config{
//		Seed:     1,
//		Phases:   []sim.Phase{{For: time.Minute, Load: 3}},
//		Strategy: sim.Strategy{Concurrency: &shed.ConcurrencyOptions{Limit: 32, Queue: shed.Queue{Max: 128}}},
//	})
//	fmt.Println(r.Goodput, r.Of(shed.Critical).Goodput(), r.P99)
//
// [Strategies] are the usual candidates. To see them side by side:
//
//	go test -run '^$' -bench Overload -benchtime 1x ./ratelimit/shed/sim
//
// # The problem
//
// A server that can answer 640 requests a second is asked for 1920. One would think
// that it answers 640 of them. It answers two or three: it works on all at once, or on those that
// have waited longest, and in both cases on requests whose clients have given up. They
// have also tried again, so that it is asked for 5000 by now. When the peak is over, the
// retries go on, and so does the overload: a metastable failure (Bronson et al.,
// "Metastable Failures in Distributed Systems", HotOS 2021).
//
// To refuse two thirds of the requests at once, before any work is done, is what keeps
// the other third alive. Which third is the question of the classes.
//
// # The model
//
// Requests arrive as a Poisson process whatever becomes of them (an open loop), each of
// a user and a class. A server shares its workers among what is in progress. More
// than there are workers is slower for each, and all together get less done
// ([Config].Crowding). A client waits for a second, and tries three times in all after
// a time-out or a refusal, with pauses that double, and are drawn at random. The server
// does not notice that a client has gone, and does its work to the end; but a request
// leaves the gate's queue with its client. A refusal costs the server a 200th of an
// average request.
//
// Decisions are made by the code of shed: the engines of [shed.Concurrency] and
// [shed.Adaptive] (its packages gate and learn), [shed.Shedder.AdmitAt] and
// [shed.Throttle.AllowAt]. All strategies see the same requests.
//
// # What you see
//
// A minute at three times what the server can do, after some seconds at 0.8; and in the
// last column a peak of 30 seconds, and how long after it 95 % of all classes are answered
// again. Goodput, wasted and refusing are shares of the server's capacity; the classes
// are shares of the requests; 216 ms is the 99th percentile of a server half idle; and
// attempts are those that reached the server, for each request.
//
//	                      goodput critical default  p99 crit.  wasted refusing attempts  recovery
//	none                    0.4 %    0.3 %   0.3 %     879 ms     3 %      0 %      3.0     never
//	fifo                    2.4 %    0.8 %   0.8 %     973 ms    98 %      0 %      3.0     never
//	fixed                    96 %     32 %    32 %     248 ms     0 %    3.5 %      2.6       0 s
//	codel                    97 %    100 %    41 %     253 ms     0 %    3.2 %      2.5       0 s
//	gradient2                93 %     31 %    31 %     452 ms     0 %    3.5 %      2.7       0 s
//	gradient2-codel          94 %    100 %    39 %     420 ms     0 %    3.2 %      2.5       0 s
//	vegas                    94 %     32 %    32 %     337 ms     0 %    3.5 %      2.7       0 s
//	vegas-codel              95 %    100 %    39 %     354 ms     0 %    3.2 %      2.5       0 s
//	shedder                 0.4 %    0.3 %   0.3 %     879 ms     2 %    0.9 %      3.0     never
//	shedder-vegas-codel      94 %    100 %    39 %     344 ms     0 %    3.2 %      2.5     never
//	throttle-vegas-codel     97 %    100 %    42 %     336 ms     0 %    0.3 %      0.5      88 s
//	recommended              96 %    100 %    40 %     332 ms     0 %    1.1 %      1.1     101 s
//
// Never is not within five minutes. What is left of none's capacity was lost by crowding.
//
//   - A limit, and be it a guess, keeps the server at work. Nothing else does: a Shedder
//     alone reacts in seconds, and after three of them it is too late.
//   - A learnt limit is somewhat above the right one, which costs some latency: the limit
//     of Gradient2 more, that of Vegas less.
//   - A short queue knows the classes. Without one, who comes first is served, and a
//     third of the critical requests is not better than a third of any.
//   - A long queue is worse than none. Nobody in it gets an answer in time.
//   - Retries treble the load. A budget of a tenth, or a Throttle, takes them away. A
//     Throttle also keeps refusals from the server, and remembers the overload for some
//     windows, in which it rejects what the server would serve.
//   - A Shedder refuses the same users, so that fewer are served in part ([Result].Torn).
//     Behind it, a gate still does the work of the first seconds. Its bounds are
//     a bargain: below what the server can do (the defaults, 0.72 to 0.9) they cost
//     answers and time to recover, which is well spent if there is no gate.
//
// So recommended is a short queue with Critical first, behind a limit that is learnt or
// known, a small reserve, and a budget for retries. The Shedder that it has goes by
// [Demand]: what the gate lets in is nothing to shed, and what it refuses is.
//
// # How to read the figures
//
// Goodput counts the work in answers that came in time. It is not the throughput: that
// of fifo is 100 %, of which 98 are wasted. A class has its goodput as the share of the
// requests that were answered at any attempt. At a load of 3 all classes but a third
// must come to nothing; at 5 the critical requests alone are all that the server can do.
//
// Runs vary by chance, and most of all those near a load of 1 without protection: a
// collapse comes sooner or later. Compare seeds.
//
// # What it leaves out
//
// Clients do not heed RetryAfter. The network takes no time and loses nothing. The server
// never crashes, whatever is in progress. A request that has been let in is not cut short.
package sim
