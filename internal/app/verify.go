package app

import "pawl/internal/verify"

// VerifyPlan says what a check of this application must find: its topics and, as the model of what is made of the
// inputs, the handlers of its routes.
func (c Config) VerifyPlan() (verify.Plan, error) {
	plan := verify.Plan{
		Application: c.Application, Generation: c.ReplayGeneration,
		Outputs: c.OutputTopics(), DeadLetters: c.DeadLetterTopic(),
	}
	if c.Effects.Enabled {
		plan.Effects = c.EffectsTopic()
	}
	if c.HasLedger() {
		plan.Results = c.ResultsTopic()
	}
	made, err := c.Handlers()
	if err != nil {
		return verify.Plan{}, err
	}
	for i, route := range c.Routes {
		for _, topic := range route.Topics {
			plan.Inputs = append(plan.Inputs, verify.Input{Topic: topic, Handler: made[i]})
		}
	}
	return plan, nil
}
