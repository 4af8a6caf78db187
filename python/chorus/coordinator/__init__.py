"""The process that applies committed entries to the table and, on the leader, awards tasks and watches
leases.
"""
