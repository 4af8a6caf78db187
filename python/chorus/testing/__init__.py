"""The kit that tests are written with: stand-ins for the parts that need a machine, a network or a clock."""
