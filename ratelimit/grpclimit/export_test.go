package grpclimit

// OutcomeOf is the judgement of a call by Shed.
var OutcomeOf = outcomeOf
