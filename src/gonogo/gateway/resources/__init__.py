"""The xDS resources, one file per type. Pure: plans in, dictionaries in Envoy's own field names out.

Every dictionary reads like the YAML of Envoy's documentation; `convert` turns it into the checked message.
"""
