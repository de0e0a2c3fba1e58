package proxy

// createSecret and createConfig label what they make; updates put the label back.
func createSecret(c *call) error { return createData(c, secret) }
func createConfig(c *call) error { return createData(c, config) }
func updateSecret(c *call) error { return updateData(c, secret) }
func updateConfig(c *call) error { return updateData(c, config) }

// createData makes a secret or a config. Templating is free: the Swarm fills templates in with what the service that uses
// them has been given anyway.
func createData(c *call, k kind) error {
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := c.only(body, "Name Labels Data Driver Templating"); err != nil {
		return err
	}
	if c.own() && !zero(body["Driver"]) { // a plugin would be asked for the value
		return &Refusal{"plugins", "a build must not use secret plugins", varPolicy}
	}
	if c.p.Policy != Keep {
		if err := body.label(c.p.labels); err != nil {
			return err
		}
	}
	name, err := body.text("Name")
	if err != nil {
		return err
	}
	return c.send(body, c.record(k, name))
}

// updateData changes the labels of a secret or a config. The API allows to change nothing else, so the other fields need
// no judge.
func updateData(c *call, k kind) error {
	f, err := c.p.need(c.ctx(), k, c.args[0])
	if err != nil {
		return err
	}
	if c.p.Policy == Keep || !c.p.mine(k, f) {
		return c.forward(nil)
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := body.label(c.p.labels); err != nil {
		return err
	}
	c.retarget(f.id)
	return c.send(body, nil)
}
