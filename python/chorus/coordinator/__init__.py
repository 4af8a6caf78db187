"""The process that applies committed entries to the table and, on the leader, awards tasks and watches
leases.
"""

# What this process is called by others, here and on other agents.
SERVICE = "coordinator"
