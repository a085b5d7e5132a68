// Package httplimit limits what clients may ask of an HTTP server, and keeps the server
// up when all of them together ask too much. It answers 429 Too Many Requests to the
// one who is above his limit, 503 Service Unavailable when there is no more to give, and
// says in both cases when to come again, in the words of the IETF.
//
// # The problem
//
// A client that is refused has to guess how long to wait, and a client that is not
// refused yet cannot know that it is about to be. So clients retry at once, all of
// them, and the load that the limit was to keep away arrives after all. Each API
// has its own X-RateLimit-… headers, with seconds here and timestamps there.
//
// # The idea
//
// [New] wraps a handler. Each request costs units of the limit of its client in a
// [ratelimit.Keyed]. Every answer to which a policy applied, but for the refusals for want
// of a key or by InProgress, carries two structured fields of
// draft-ietf-httpapi-ratelimit-headers-10, one that names the policy and one that
// says what is left of it:
//
//	RateLimit-Policy: "default";q=100;w=10
//	RateLimit: "default";r=50;t=3
//
// that is: 100 units in 10 seconds, of which 50 are left, and more come in 3
// seconds at the latest. A refused request is answered with
//
//	HTTP/1.1 429 Too Many Requests
//	Content-Type: application/problem+json
//	Retry-After: 3
//	RateLimit-Policy: "default";q=100;w=10
//	RateLimit: "default";r=0;t=3
//
//	{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded", …
//
// # At a glance
//
//   - [New] for limits of clients, [NewLimits] if you want its counters too. Several
//     policies, Options.Also, are decided together: a request that the endpoint's limit
//     refuses takes nothing from the tenant's and the user's.
//   - Options.Settle and [SetCost] if what a request costs is known only afterwards.
//   - Options.InProgress for a limit on what one client has in progress.
//   - [NewShed] for the server's own limits: with the gates and the Shedder of package
//     shed, and a fallback.
//   - [Cap] for the sizes of pages, [Budget] for the time of a request.
//   - [ClientIP], [Header], [Bearer], [User], [Route], [Hashed] and [Join] say who a
//     client is.
//   - [Transport] for clients: it waits before it is refused.
//
// The order matters: first [Budget], then the limits of clients, then [Shed]. What is
// above a client's limit then takes no place from the others, and waiting for a place
// uses up the request's own time. CORS goes around them all: a browser sends a preflight
// without credentials, so it has no key, and cannot read a refusal without CORS fields.
// Leave out the health checks of an orchestrator by When and Class, or it ends the
// process that sheds.
//
// # The fields
//
// A limit of the package ratelimit has a rate and a burst. The draft has a quota q
// and a window w in whole seconds. q is the burst and w the time in which it
// refills, rounded up; a burst that refills in less than a second is given as what
// a second brings. So q/w is never more than the rate, and never less than half of
// it; r, the whole units left, is never more than q. t is the time until the next
// unit is there, rounded up, and is left out when nothing is missing. Retry-After
// is the time until the same request would be admitted if no other came,
// rounded up: never 0, and never less than t, as the draft demands. A partition
// key (pk) is not sent: the key may be a secret.
//
// With several policies each field has one member for each, and Retry-After, and what it
// is compared with, is that of the policy that refuses for longest. The fields are added,
// not set, so that middlewares with different names can be stacked; the draft allows a
// field to be split.
//
// # Keys
//
// The key function decides who is limited. It should return what the server itself
// has established: the user of a checked token, the tenant of a session. Do not
// return what a client can choose anew for each request, such as an unchecked
// header; then each request has a fresh limit. For the same reason X-Forwarded-For
// is worth nothing but for the part that a trusted proxy wrote: see [ClientIP]. A
// request without a key is refused with 400: it does not share one global limit.
//
// # Trying and switching off
//
// Options.Mode is asked for each request. [Shadow] decides and counts, and refuses
// nobody: run a new limit so for a week, and read from [Limits.Stats] or
// Options.OnDecision whom it would have hit. [Off] is the switch for the night in which
// the limit itself is the trouble.
//
// # Its own errors
//
// A limit must not be what takes the service down. When a function of the options or of
// a limiter panics, when a cost is negative, or when a key cannot be told through no fault of the
// client, the policy is left out for the request, and the others decide; a switch that
// panics is off. It is counted in Stats and reported to Options.OnError. A hook that
// panics changes nothing. Panics of the next handler pass through untouched, with all
// that was held given back.
//
// # When not to use it
//
// It is no defence against traffic that saturates the network: that has to be dropped
// before it arrives here. Limits are those of one process: behind a load balancer
// divide them, or route a key to one process.
//
// # Sources
//
// draft-ietf-httpapi-ratelimit-headers-10 (the fields and the problem types), RFC
// 9651 (structured fields), RFC 9457 (problem details), RFC 6585 (status 429), RFC
// 9110 section 10.2.3 (Retry-After), RFC 7239 (Forwarded). Stripe, "Scaling your API
// with rate limiters", 2017 (the four limiters, dark launches, failing open).
package httplimit
