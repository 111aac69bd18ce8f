/*
 * vmm/x86/aml.h - writes ACPI Machine Language, the few terms that our DSDT needs
 *
 * What:    terms are appended to a caller's buffer. A term with contents is opened, filled and
 *          closed by aml_end(), which knows its length only then. When the buffer is full, @full is
 *          set and nothing more is written: check once at the end.
 * Spec:    ACPI 6.5, 20.2 (grammar), 6.4 (resource descriptors)
 */
#pragma once

#include "base/util.h"

struct aml {
	uint8_t *buf;
	size_t len, cap;
	bool full;
};

void aml_init(struct aml *a, void *buf, size_t cap);

/* Each returns a mark for aml_end(). @name: one NameSeg of four characters, or "\\" and one. */
size_t aml_scope(struct aml *a, const char *name) must_check;
size_t aml_device(struct aml *a, const char *name) must_check;
/* Name(_CRS, ResourceTemplate() {...}): fill with aml_res_*(). */
size_t aml_resources(struct aml *a) must_check;
void aml_end(struct aml *a, size_t mark);
void aml_resources_end(struct aml *a, size_t mark);

void aml_name_int(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *value);
/* "PNP0501": three capitals, four hexadecimal digits. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_name_package(struct aml *a, const char *name, const uint8_t *values, uint8_t n);

void aml_res_memory(struct aml *a, uint32_t base, uint32_t len);
void aml_res_ports(struct aml *a, uint16_t base, uint8_t len);
/* Edge, active high, exclusive. */
void aml_res_interrupt(struct aml *a, uint32_t gsi);
