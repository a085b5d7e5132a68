// Package shed keeps a service at work when it is asked for more than it can do: limits on
// what is in progress, fixed or learnt, queues that do not stand, and rules by which the
// least important requests go first.
//
// # The problem
//
// A server that is asked for three times what it can do does not do a third of it. It
// takes everything, so everything waits; clients give up and ask again, and the server
// goes on with the requests that they gave up. Soon all of its work is for nobody. It
// stays that way after the peak has passed, because by then the retries are the load.
//
// A limit on the rate of each client does not help: nobody did anything wrong.
//
// # The idea
//
// What a server can work on at a time is a number, whatever the requests are and however
// long they take: by Little's law it is what it does a second times how long that takes. More
// in progress than that is a queue in disguise. So
//
//   - let in as many as that number and refuse the rest at once, which costs next to
//     nothing: [Concurrency] if the number is known, [Adaptive] if it must be learnt;
//   - let short peaks wait, in a [Queue] that may be long for a moment but not stand, and
//     drop what has waited too long before any work is done on it;
//   - refuse the right ones. Each request has a [Class]. Higher ones overtake lower
//     ones in the queue, and a reserve is for critical ones alone. [Shedder] refuses
//     classes from the bottom before they get to the gate, and in a class always the same
//     users, so that the others' sessions work;
//   - give a cheaper answer if there is one: [Fallback];
//   - do not ask a server that refuses: [Throttle], on the client's side.
//
// # How to use it
//
//	gate, err := shed.NewAdaptive(shed.AdaptiveOptions{Reserve: 0.1, Queue: shed.Queue{Max: 100}})
//	...
//	err := gate.Do(ctx, shed.Default, func(ctx context.Context) error {
//		return handle(ctx, request)
//	})
//	if errors.Is(err, shed.ErrShed) {
//		// 503: nothing was done
//	}
//
// The package httplimit has a middleware that does this, chooses classes, and answers with
// Retry-After; the module grpclimit has interceptors.
//
// Every refusal is an [*Error] that wraps [ErrShed] and says which rule refused. It means
// that nothing was done, and that it was not the client's fault: 503, and not 429.
//
// # What to expect
//
// The package sim runs all of this under load from half to five times of what a server
// can do, with clients that time out and retry. Its documentation has the table.
//
// # When not to use it
//
// A limit on what is in progress does not tell clients apart: one that asks a thousand
// times as often gets a thousand times as much. That needs a limit for each client, which
// is ratelimit.Keyed, or [KeyedConcurrency].
//
// Adaptive learns from latencies. Where those say little of the load (a mixture of cache
// hits and reports, calls that wait for a person) give it a gate for each kind, or a fixed
// limit.
//
// Handlers that only compute wait in Go's scheduler, before they get to a gate. A limit on
// what is in progress does not see that; [Shedder] does. Put both in front.
//
// Shedding keeps a server alive. It is no replacement for enough servers.
//
// # Sources
//
// "Scaling your API with rate limiters" (Stripe, 2017): the four limiters, classes and a
// reserve. Maurer, "Fail at Scale" (ACM Queue, 2015): CoDel and adaptive LIFO. Nichols and
// Jacobson, "Controlling Queue Delay" (ACM Queue, 2012). Zhou et al., "Overload Control for
// Scaling WeChat Microservices" (SoCC, 2018): priorities of users within a class. Brakmo
// and Peterson, "TCP Vegas" (1995), and Netflix's concurrency-limits: learnt limits.
// Beyer et al., "Site Reliability Engineering" (2016), chapter 21: throttling by clients.
package shed
