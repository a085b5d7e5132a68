// Package balance chooses one of several backends for each request. A
// [Balancer] with [LeastRequest], the power of two choices, picks in about the
// time of a random number, two atomic loads and one atomic addition, whatever the
// number of backends; it keeps away from those that fail, and in the caller's zone.
//
// # The problem
//
// Requests do not cost the same and backends are not equally fast. Taking turns
// gives a slow backend as much as a fast one, so its queue grows and the slowest
// requests of all pass through it. Asking everybody for the shortest queue is
// worse: the answer is old by the time it is used, and every client sends its
// next request to the same backend.
//
// # The idea
//
// Draw two backends at random and take the one with fewer requests under way.
// That small amount of choice is nearly as good as full knowledge: with n
// requests on n backends the longest queue falls from about log n / log log n to
// log log n, and a signal that is wrong or old misleads only the pairs it is
// drawn in.
//
//	b, err := balance.New[*url.URL](balance.LeastRequest(balance.LeastRequestOptions{}), balance.Options{})
//	...
//	err = b.Update([]balance.Backend[*url.URL]{{ID: "a", Value: a}, {ID: "b", Value: b}})
//	...
//	p, err := b.Pick()
//	if err != nil {
//		return err // ErrNoBackends
//	}
//	resp, err := call(p.Value)
//	p.Done(err)
//
// Or let [Balancer.Do] end the pick. A pick that is never done counts as a request
// under way for ever: end every one. For a retry, [Balancer.PickExcept] leaves out
// the backends that have been tried.
//
// # Which strategy
//
// The figures are what 99 of 100 requests take at most, in mean service times, in the
// simulator (go test -bench Sim -benchtime 1x ./balance/sim): with one client of 100
// backends, at 80 % of their capacity; with 100 clients, none of which sees the others'
// requests; with a quarter of the backends at a quarter of the speed, for one client and
// for 100; with neighbours that take two thirds of a backend's speed for a while; and
// for the rendering of pages on few processors, some of them a hundred times as large.
//
//	              1 client  100 clients  slow quarter  same, 100 clients  neighbours  pages
//	Random            23.3         22.2       overrun            overrun        31.6   22.3
//	RoundRobin        12.4         16.4       overrun            overrun        23.7   15.1
//	LeastRequest       7.5         18.7          27.3              447          18.3    9.6
//	LeastLatency       7.8         17.5          15.5               64          19.0    9.4
//	Prequal            6.3          9.5           6.5               13          11.7    9.3
//
// In words:
//
//   - [LeastRequest], unless you know better: slow and busy backends get less, for the
//     price of a random number.
//   - [LeastLatency] if the backends are not equally fast and each client has few
//     requests under way. A latency is remembered, where a count is 0 again.
//   - [Prequal] if there are many clients, or backends share their machines with
//     others, and a probe is cheap against a request: it sends three for each.
//   - [RoundRobin] if requests are alike and the exact shares matter more than the
//     load.
//   - [Random] if nothing else is known to help, and to compare with.
//
// # Where two choices are the wrong tool
//
// A balancer knows the requests of its own process only. With about as many clients as
// the backends have requests under way, two candidates are nearly always both idle in
// its eyes, and the choice is random again. [Balancer.Blind] tells how often that is so.
// Then give each client a [Subset]: with 12 of the 100 backends, 100 clients come from
// 18.7 to 11.8. Or ask the backends, as [Prequal] does.
//
// A balancer in front of a cache should send a key to where it is cached: use a hash.
// Requests that last for hours, such as streams, are balanced when they begin and never
// after. And no balancer helps if all backends together are too slow: shed load.
//
// # Membership and health
//
// [Balancer.Update] replaces the set of backends. What is known of a backend is
// kept by its ID, so that a deploy does not make the balancer forget which
// backends are busy. A backend that left and came back starts anew, and a backend that
// joins others gets its share little by little.
//
// A backend that fails at once always looks idle, and would attract up to twice its
// share of the requests. So a failure counts as a request that takes a second; and
// after five in a row, or when too few succeed, the backend is left out for a while.
// In the simulator a twentieth of the backends failing fast costs 0.07 % of the
// requests, where it is 6.7 % without (scenario=sinkhole). See [Health] for all of it
// and the numbers. What an error says of the backend is for [Options].Classify to
// decide.
//
// # Zones, subsets and weights
//
// [Zone] keeps requests in the caller's own zone as long as it can take them. [Subset]
// gives each of many clients a part of the backends, such that all get the same. Both
// are decided when the set or the health of a backend changes, so that a pick pays
// nothing for them.
//
// A backend of weight 2 should get twice what one of weight 1 gets, and every
// strategy does that, Prequal about so. LeastRequest draws its candidates by weight and
// compares requests under way for each unit of weight; drawing them evenly would cap any
// backend at 2/n of the requests, however large its weight.
//
// # Under net/http and gRPC
//
// Package httpbalance makes an [net/http.RoundTripper] of a Balancer, and the module
// grpcbalance makes policies of a gRPC client. Package sim runs this package in a
// simulation, and is where the figures come from.
//
// Sources: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing
// (IEEE TPDS 2001); Wydrowski and others, Load is not what you should balance (NSDI
// 2024), on Prequal; the balancers of Finagle, Envoy, Linkerd and gRPC.
package balance
