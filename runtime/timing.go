package runtime

import "time"

// timing holds the waits of the runtime. They are fields so that tests need not wait as long. The waits within one
// call are the client's (client.Timing).
//
// The server's long polls and watches last 30 s, and it may take minutes for a report that it passes on to the forge:
// beat and stagger, and delivery, follow from that. What a person waits for (a stop, a restart, a step's first line)
// is held to a few seconds.
type timing struct {
	minute time.Duration // what the server means by one, for a repository's timeout

	backoff    time.Duration // the first pause after a fault
	backoffMax time.Duration // the longest

	beat      time.Duration // the longest time without a confirmation that the build lives
	beatShort time.Duration // how long one confirmation may take while the server refuses connections
	beatLong  time.Duration // and when it takes its time
	stagger   time.Duration // between the openings of the two watches: half of what one lasts

	announce   time.Duration // how long a step waits for the server to know that it runs
	stepsLimit time.Duration // how long the ends of the steps may hold up the end of their stage
	hold       time.Duration // how long a slot waits for its reports before they go on in the background
	stopHold   time.Duration // how long it waits for them once the runner is stopped
	stopped    time.Duration // how old a call may be then that was begun before

	round   time.Duration // between two rounds of the main loop
	paused  time.Duration // between two looks at why polling is paused
	claimed time.Duration // before asking again when another slot has what was offered

	retry       time.Duration // the first pause between two background deliveries
	retryMax    time.Duration // the longest
	recover     time.Duration // how long polling waits for what an earlier process left to be reported
	delivery    time.Duration // how long one delivery may take; the server may take minutes for the end of a stage
	giveUpSteps time.Duration // after which the steps of a stage that is over on the server are left as they are there

	// giveUp is after which a stage that the server does not take is forgotten. Drone's own reaper has ended it by then:
	// it gives a build 24 h and looks once a day.
	giveUp time.Duration
}

func defaultTiming() *timing {
	return &timing{
		minute:      time.Minute,
		backoff:     time.Second,
		backoffMax:  30 * time.Second,
		beat:        25 * time.Second,
		beatShort:   1500 * time.Millisecond,
		beatLong:    time.Minute,
		stagger:     15 * time.Second,
		announce:    2 * time.Second,
		stepsLimit:  20 * time.Second,
		hold:        time.Minute,
		stopHold:    5 * time.Second,
		stopped:     500 * time.Millisecond,
		round:       5 * time.Second,
		paused:      time.Second,
		claimed:     100 * time.Millisecond,
		retry:       2 * time.Second,
		retryMax:    time.Minute,
		recover:     15 * time.Second,
		delivery:    6 * time.Minute,
		giveUpSteps: 10 * time.Minute,
		giveUp:      72 * time.Hour,
	}
}

func (t *timing) pauses() *pauses { return &pauses{next: t.backoff, max: t.backoffMax} }

// watchPauses are between the openings of a watch that breaks again and again.
func (t *timing) watchPauses() *pauses { return &pauses{next: t.backoff, max: 8 * t.backoff} }

// clashes are before asking again when what was offered is not free: short at first, since another slot accepts it at
// this moment.
func (t *timing) clashes() *pauses { return &pauses{next: t.claimed, max: t.backoffMax} }
